"""Files in fewer bits: smaller, close to torch on 200 images, and quiet."""

import functools
import json
import os
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import fix_weights
from torch import nn

from benchmarks._forks import run_python
from skdeepfeat import FineTuneClassifier, FineTuneRegressor
from skdeepfeat.compression import compress
from skdeepfeat.exceptions import BadImageError

ROOT = pathlib.Path(__file__).parents[2]
SIZE = 32
DTYPES = ["float32", "float16", "int8"]
# Mean and largest differences of probabilities.
TOLERANCES = {"float32": (1e-5, 1e-4), "float16": (1e-3, 1e-2), "int8": (0.03, 0.3)}


class SmallNet(nn.Module):
    """Convolutions, one with groups and one beside a sum, and a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 64, 1)
        self.narrow = nn.Conv2d(64, 16, 1)
        self.head = nn.Linear(16, 10)
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.narrow(self.wide(self.depthwise(x)).relu())
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def pixels():
    """200 images of the size of the network, smooth, in several colors."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (200, 4, 4, 3), np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def labels(pixels):
    return pixels.mean((1, 2)).argmax(1)


@pytest.fixture(scope="module")
def classifier(pixels, labels):
    return estimator().fit(pixels, labels)


def estimator(kind=FineTuneClassifier, model=None, **parameters):
    model = SmallNet() if model is None else model
    defaults = {
        "max_epochs": 1,
        "head_epochs": 5,
        "device": "cpu",
        "cache": None,
        "random_state": 0,
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
    }
    return kind(model, **{**defaults, **parameters})


def write(fitted, kind, path, dtype, X_calibration=None):
    """Write files; return a function from pixels to the results that they give."""
    if kind == "onnx":
        fitted.to_onnx(path / "f.onnx", dtype=dtype, X_calibration=X_calibration)
        onnx.checker.check_model(path / "f.onnx", full_check=True)
    else:
        fitted.to_openvino(path / "f.xml", dtype=dtype, X_calibration=X_calibration)
    return read(kind, path)


def read(kind, path):
    if kind == "onnx":
        session = onnxruntime.InferenceSession(path / "f.onnx")
        return lambda images: session.run(None, {"images": images})[0]
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(path / "f.xml", "CPU", settings)
    [name] = compiled.outputs[0].names
    return lambda images: compiled({"images": images})[name]


@pytest.fixture(scope="module")
def folder_of(classifier, pixels, tmp_path_factory):
    """Return a function to the folder with files of the classifier, written once."""

    @functools.cache
    def folder_of(kind, dtype):
        folder = tmp_path_factory.mktemp("files")
        write(classifier, kind, folder, dtype, pixels[::4])
        return folder

    return folder_of


def assert_close(found, wanted, dtype):
    differences = np.abs(found - wanted)
    mean, largest = TOLERANCES[dtype]
    assert differences.mean() < mean
    assert differences.max() < largest


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param("float32", marks=pytest.mark.slow),
        "float16",
        pytest.param("int8", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_200_images(kind, dtype, classifier, pixels, folder_of):
    if kind == "openvino":
        pytest.importorskip("openvino")
    predict = read(kind, folder_of(kind, dtype))
    wanted = classifier.predict_proba(pixels)
    for images in (pixels, pixels[:1]):
        found = predict(images)
        assert found.shape == (len(images), 3)
        assert_close(found, wanted[: len(images)], dtype)
    same = (predict(pixels).argmax(1) == wanted.argmax(1)).mean()
    assert same >= (0.9 if dtype == "int8" else 0.995)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_files_get_smaller(kind, pixels, labels, tmp_path):
    if kind == "openvino":
        pytest.importorskip("openvino")
    # Nearly all of a file are weights. Exports take as long as there are layers.
    network = nn.Sequential(
        nn.Conv2d(3, 64, 3, stride=2), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 512, 3, stride=2), nn.ReLU(),
        nn.Conv2d(512, 512, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    fitted = estimator(model=network, unfreeze=None).fit(pixels, labels)
    wanted = fitted.predict_proba(pixels)
    name = {"onnx": "f.onnx", "openvino": "f.bin"}[kind]
    sizes = []
    for dtype in DTYPES:
        found = write(fitted, kind, tmp_path, dtype, pixels[::4])(pixels)
        # In 8 bits, a head on random features is right too seldom to tell.
        if dtype != "int8":
            assert np.abs(found - wanted).max() < (1e-4 if dtype == "float32" else 0.05)
        sizes.append((tmp_path / name).stat().st_size)
    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.36 * sizes[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_the_digits_of_targets_are_kept(kind, pixels, tmp_path):
    if kind == "openvino":
        pytest.importorskip("openvino")
    years = 50_000 + pixels.mean((1, 2, 3)) / 10
    fitted = estimator(FineTuneRegressor).fit(pixels, years)
    wanted = fitted.predict(pixels)
    found = write(fitted, kind, tmp_path, "int8", pixels[:50])(pixels)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 0.25 * years.std()
    assert len(np.unique(found)) > 100  # not rounded to 8 bits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "kind"),
    [
        ("timm/test_vit", "onnx"),
        ("timm/test_vit", "openvino"),
        ("timm/convnext_atto", "onnx"),
        ("mobilenet_v3_small", "openvino"),
    ],
)
def test_other_families(model, kind, pixels, labels, tmp_path):
    if kind == "openvino":
        pytest.importorskip("openvino")
    parameters = {"weights": "random", "unfreeze": None}
    if "vit" in model:
        parameters["image_size"] = SIZE
    fitted = estimator(model=model, **parameters).fit(pixels[:60], labels[:60])
    wanted = fitted.predict_proba(pixels)
    found = write(fitted, kind, tmp_path, "int8", pixels[::4])(pixels)
    assert np.abs(found - wanted).mean() < 0.1


@pytest.mark.slow
def test_a_compressed_network(classifier, pixels, labels, tmp_path):
    small = compress(
        classifier, pixels, labels, method="svd", max_score_drop=0.5,
        runtimes=["torch"], random_state=0,
    )  # fmt: skip
    wanted = small.predict_proba(pixels)
    found = write(small, "onnx", tmp_path, "int8", pixels[::4])(pixels)
    assert_close(found, wanted, "int8")


def test_weights_are_stored_in_fewer_bits(folder_of):
    kinds = {}
    for dtype in DTYPES:
        proto = onnx.load(folder_of("onnx", dtype) / "f.onnx")
        kinds[dtype] = {
            one.data_type for one in proto.graph.initializer if len(one.dims) == 4
        }
        notes = {one.key: json.loads(one.value) for one in proto.metadata_props}
        assert notes["dtype"] == dtype and notes["classes"] == [0, 1, 2]
        # No paths of the machine that wrote it.
        assert __file__ not in str(proto) and "site-packages" not in str(proto)
    assert onnx.TensorProto.FLOAT16 in kinds["float16"]
    assert onnx.TensorProto.INT8 in kinds["int8"]
    # 7 bits, so that no processor overflows.
    kernels = [
        onnx.numpy_helper.to_array(one)
        for one in proto.graph.initializer
        if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4
    ]
    assert max(np.abs(kernel.astype(int)).max() for kernel in kernels) <= 64


@pytest.mark.slow
def test_quantized_files_are_quiet(classifier, pixels, tmp_path, capfd):
    pytest.importorskip("nncf")
    for kind in ("onnx", "openvino"):
        write(classifier, kind, tmp_path, "int8", pixels[:20])
    assert capfd.readouterr() == ("", "")
    assert {one.name for one in tmp_path.iterdir()} == {"f.onnx", "f.xml", "f.bin"}


SPIED = """
import logging, os, pathlib, sys, types
import numpy as np

reports = []
spy = types.ModuleType("openvino_telemetry")

class Telemetry:
    def __init__(self, *args, **kwargs):
        reports.append("made")
    def __getattr__(self, name):
        return lambda *args, **kwargs: reports.append(name)

spy.Telemetry = Telemetry
sys.modules["openvino_telemetry"] = spy

from torch import nn
from skdeepfeat import FineTuneClassifier

network = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    nn.Linear(8, 4),
)
X = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
clf = FineTuneClassifier(
    network, unfreeze=None, cache=None, device="cpu", random_state=0,
    preprocessing={"resize": 32, "crop": (32, 32)},
).fit(X, np.arange(20) % 2)
logger_class = logging.getLoggerClass()
for _ in range(2):
    clf.to_openvino("f.xml", dtype="int8", X_calibration=X)
clf.to_onnx("f.onnx", dtype="int8", X_calibration=X)
import nncf

assert "pytest" not in sys.modules  # NNCF reports nothing where it is
assert sys.modules["openvino_telemetry"] is spy
assert logging.getLoggerClass() is logger_class
assert not logging.getLogger().handlers
assert not reports, reports
"""


@pytest.mark.slow
def test_no_usage_is_reported(tmp_path):
    pytest.importorskip("nncf")
    # NNCF itself reports nothing in tests.
    hidden = ("NNCF_CI", "NNCF_DEV", "CI", "GITHUB_ACTIONS", "PYTEST_CURRENT_TEST")
    done = run_python(
        ["-c", SPIED],
        cwd=tmp_path,
        env={
            **{key: one for key, one in os.environ.items() if key not in hidden},
            "PYTHONPATH": str(ROOT),
        },
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_numbers_that_do_not_fit(kind, pixels, labels, tmp_path):
    if kind == "openvino":
        pytest.importorskip("openvino")
    # The second convolution makes up for the first.
    network = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    with torch.no_grad():
        network[0].weight *= 1e6
        network[1].weight *= 1e-6
    fitted = estimator(model=network, unfreeze=None).fit(pixels, labels)
    with pytest.raises(ValueError, match="'dtype' .* must be 'float32'.*65504"):
        write(fitted, kind, tmp_path, "float16")
    assert not list(tmp_path.iterdir())
    write(fitted, kind, tmp_path, "float32")


@pytest.mark.parametrize("method", ["to_onnx", "to_openvino"])
def test_bad_input(method, classifier, pixels, tmp_path):
    pytest.importorskip("openvino")
    ending = {"to_onnx": ".onnx", "to_openvino": ".xml"}[method]
    path = tmp_path / f"f{ending}"
    to_file = getattr(classifier, method)
    with pytest.raises(ValueError, match=r"'dtype'.*Did you mean 'float16'"):
        to_file(path, dtype="float61")
    with pytest.raises(ValueError, match="'dtype'.*Got 8 instead"):
        to_file(path, dtype=8)
    with pytest.raises(ValueError, match="'X_calibration'.*must be given"):
        to_file(path, dtype="int8")
    with pytest.raises(ValueError, match="'X_calibration'.*at least 10.* Got 9"):
        to_file(path, dtype="int8", X_calibration=pixels[:9])
    with pytest.raises(TypeError, match="'X_calibration'.*Got <generator"):
        to_file(path, dtype="int8", X_calibration=(p for p in pixels))
    with pytest.raises(TypeError, match="'path'.*Got 3 instead"):
        to_file(3)
    for other in ("f", "f.bin", "f.safetensors"):
        with pytest.raises(ValueError, match=f"'path'.*end in '{ending}'.*{other}"):
            to_file(tmp_path / other)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_calibration_images_that_cannot_be_read(classifier, pixels, tmp_path):
    missing = str(tmp_path / "missing.jpg")
    images = [*pixels[:10], missing]
    path = tmp_path / "f.onnx"
    with pytest.raises(BadImageError, match=r"missing\.jpg"):
        classifier.to_onnx(path, dtype="int8", X_calibration=images)
    classifier.set_params(on_error="nan")
    try:
        classifier.to_onnx(path, dtype="int8", X_calibration=images)
        with pytest.raises(ValueError, match="Got 11, 9 of which can be read"):
            classifier.to_onnx(
                path, dtype="int8", X_calibration=[*pixels[:9], missing, missing]
            )
    finally:
        classifier.set_params(on_error="raise")


def test_large_sets_are_drawn_from(classifier, pixels, tmp_path):
    missing = str(tmp_path / "missing.jpg")
    images = [*pixels, *pixels, *pixels[:99], missing]
    with pytest.raises(BadImageError, match=r"index 499, .*missing\.jpg"):
        classifier.to_onnx(tmp_path / "f.onnx", dtype="int8", X_calibration=images)
    with pytest.raises(ValueError, match="'X_calibration'.*Got 0"):
        classifier.to_onnx(tmp_path / "f.onnx", dtype="int8", X_calibration=[])


def test_without_the_extra(classifier, pixels, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    monkeypatch.setitem(sys.modules, "nncf", None)
    for method, name in [("to_onnx", "f.onnx"), ("to_openvino", "f.xml")]:
        with pytest.raises(ImportError, match=r"skdeepfeat\[int8\]"):
            getattr(classifier, method)(tmp_path / name, "int8", pixels[:20])
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"openvino.*skdeepfeat\[openvino\]"):
        classifier.to_openvino(tmp_path / "f.xml")


def test_old_files_stay_until_new_ones_are_complete(
    classifier, pixels, tmp_path, monkeypatch
):
    pytest.importorskip("openvino")
    import openvino

    write(classifier, "openvino", tmp_path, "float32")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}

    def full_disk(*args, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(openvino, "save_model", full_disk)
    with pytest.raises(OSError, match="no space"):
        classifier.to_openvino(tmp_path / "f.xml", dtype="float16")
    assert before == {one.name: one.read_bytes() for one in tmp_path.iterdir()}
