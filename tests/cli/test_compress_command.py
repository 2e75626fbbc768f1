"""`skdeepfeat compress`."""

import json
import os
import warnings

import numpy as np
import pytest
from PIL import Image

from skdeepfeat import FineTuneClassifier, FineTuneRegressor
from skdeepfeat._utils import _choices
from skdeepfeat.compression._criteria import CRITERIA
from skdeepfeat.compression._search import METHODS
from skdeepfeat.compression._timing import RUNTIMES

NAMES = ("dark", "light")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a folder for each class, and a model."""
    folder = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    paths, labels = [], []
    for k, name in enumerate(NAMES):
        (folder / "photos" / name / "more").mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(100 * k, 100 * k + 150, (32, 32, 3), dtype=np.uint8)
            inner = "more" if number % 2 else "."
            path = folder / "photos" / name / inner / f"{number}.png"
            Image.fromarray(pixels).save(path)
            paths.append(str(path))
            labels.append(name)
    settings = {"image_size": 32, "max_epochs": 0, "cache": None, "device": "cpu"}
    settings |= {"model": "timm/test_efficientnet", "weights": "random"}
    settings["random_state"] = 0
    classifier = FineTuneClassifier(**settings).fit(paths, labels)
    classifier.save(folder / "model.safetensors")
    FineTuneRegressor(**settings).fit(paths, np.arange(24.0)).save(
        folder / "regressor.safetensors"
    )
    return folder


def compress(run, folder, *options, model="model.safetensors", images="photos"):
    return run(
        "compress", folder / model, folder / images, "--max-drop", 0.5,
        "--runtime", "torch", "--fine-tune-epochs", 0, "--random-state", 0, *options,
    )  # fmt: skip


@pytest.mark.slow
def test_a_smaller_file_and_a_report(run, folder, tmp_path):
    output = tmp_path / "small.safetensors"
    result = compress(run, folder, "-o", output, "--verbose", "--max-drop", 0)
    assert result.exit_code == 0, result.stderr
    small = FineTuneClassifier.load(output)
    before = FineTuneClassifier.load(folder / "model.safetensors")
    summary = small.compression_summary_
    assert summary["bytes"].iloc[1] < 0.8 * summary["bytes"].iloc[0]
    photo = [str(folder / "photos" / "dark" / "0.png")]
    assert small.predict(photo) == before.predict(photo) == ["dark"]
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["method", "layer", "kind"]
    [after] = [line for line in lines if line.startswith("after low_rank")]
    n = summary["parameters"].iloc[-1]
    assert f"{n:,}" in after and after.split()[2] == f"{summary['score'].iloc[-1]:.4f}"
    # Progress and the summary go to stderr.
    assert "low_rank, level" in result.stderr
    assert "24 images" in result.stderr.splitlines()[-1]
    assert compress(run, folder, "-o", output).exit_code == 2
    again = compress(run, folder, "-o", output, "--overwrite", "--quiet", "--json")
    assert (again.exit_code, again.stderr) == (0, "")
    tables = json.loads(again.stdout)
    assert [row["network"] for row in tables["networks"]] == [
        "before", "after low_rank",
    ]  # fmt: skip
    assert {"layer", "kind", "parameters"} <= tables["layers"][0].keys()


@pytest.mark.slow
def test_an_onnx_file_by_several_methods(run, folder, tmp_path):
    import onnxruntime

    output = tmp_path / "small.onnx"
    result = compress(
        run, folder, "-o", output, "--method", "prune", "--method", "svd",
        "--criterion", "magnitude", "-q",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "after prune" in result.stdout and "after svd" in result.stdout
    session = onnxruntime.InferenceSession(output)
    photo = np.asarray(Image.open(folder / "photos" / "light" / "0.png"))[None]
    [chances] = session.run(None, {"images": photo})
    assert chances.shape == (1, 2) and chances.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_what_a_warning_says_is_shown(run, folder, tmp_path):
    output = tmp_path / "small.safetensors"
    with warnings.catch_warnings():
        result = compress(run, folder, "-o", output, "--max-bytes", 1000)
    assert result.exit_code == 0
    assert "Warning: The smallest network that 'low_rank' gives" in result.stderr


def test_wrong_usage(run, folder, tmp_path, monkeypatch):
    output = tmp_path / "small.safetensors"
    for options, words in [
        (["-o", tmp_path / "small.pth"], "must end in .safetensors or .onnx"),
        (["-o", tmp_path / "none" / "small.onnx"], "there is no folder"),
        (["-o", output, "--method", "low"], "low_rank"),
        (["-o", output, "--validation-fraction", 1], "--validation-fraction"),
        (["-o", output, "--validation-fraction", 0.01], "'validation_fraction'"),
        (["-o", output, "-q", "-v"], "cannot be combined"),
        ([], "--output"),
    ]:
        result = compress(run, folder, *options)
        assert (result.exit_code, result.stdout) == (2, ""), result.stderr
        assert words in result.stderr
    result = compress(run, folder, "-o", output, model="regressor.safetensors")
    assert result.exit_code == 2 and "FineTuneRegressor" in result.stderr
    Image.new("RGB", (32, 32)).save(tmp_path / "0.png")
    result = compress(run, folder, "-o", output, images=tmp_path)
    assert result.exit_code == 2
    assert "no folder that is named like a class" in result.stderr
    assert "dark, light" in result.stderr
    (tmp_path / "folder.onnx").mkdir()
    result = compress(run, folder, "-o", tmp_path / "folder.onnx", "--overwrite")
    assert result.exit_code == 2 and "is a folder" in result.stderr
    model = folder / "model.safetensors"
    content = model.read_bytes()
    result = compress(run, folder, "-o", model, "--overwrite")
    assert result.exit_code == 2 and "is the model itself" in result.stderr
    assert model.read_bytes() == content
    result = compress(run, folder, "-o", output, images="photos/dark")
    assert result.exit_code == 2
    assert "class 'dark'" in result.stderr and "no images of light" in result.stderr
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
        result = compress(run, folder, "-o", output)
    assert result.exit_code == 2 and "is not writable" in result.stderr
    several = FineTuneClassifier.load(folder / "model.safetensors")
    several.set_params(test_time_augmentation="flip")
    several.save(folder / "several.safetensors")
    options = ["-o", tmp_path / "small.onnx"]
    result = compress(run, folder, *options, model="several.safetensors")
    assert result.exit_code == 2 and "'test_time_augmentation'" in result.stderr
    assert not output.exists()


def test_choices_are_those_of_the_function():
    assert set(_choices.COMPRESSION_METHODS) == set(METHODS)
    assert set(_choices.PRUNING_CRITERIA) == set(CRITERIA)
    assert list(_choices.TIMED_RUNTIMES) == list(RUNTIMES)
