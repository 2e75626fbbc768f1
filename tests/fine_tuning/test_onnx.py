"""Fitted estimators as ONNX files: another runtime gives the same numbers."""

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import fix_weights
from numpy.testing import assert_allclose
from torch import nn

from skdeepfeat import FineTuneClassifier, FineTuneRegressor
from skdeepfeat.feature_extraction import ExtractionSettings, load_pixels
from skdeepfeat.fine_tuning import PixelsToResult

N = 12
SIZE = 32


class TinyNet(nn.Module):
    """Two convolutions, one used twice, and a head that is dropped."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 1003)
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = self.twice(self.twice(x).relu()).relu()
        return self.head(x.mean((2, 3)))


class HeadlessNet(nn.Module):
    """Its output is the neck, so nothing can be dropped."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)

    def forward(self, x):
        return {"features": self.stem(x).relu().mean((2, 3))}


class ChoosingNet(TinyNet):
    """Computes something else for dark images, which no graph can follow."""

    def forward(self, x):
        if x.mean().item() < 0:
            x = -x
        return super().forward(x)


class CountingNet(TinyNet):
    """Makes the number of images an int, which a graph keeps as a constant."""

    def forward(self, x):
        return super().forward(x.reshape(len(x), *x.shape[1:]))


@pytest.fixture(scope="module")
def pixels():
    """Images of the network's own size: to resize and crop is not the file's part."""
    images = np.random.default_rng(0).integers(0, 128, (N, SIZE, SIZE, 3), np.uint8)
    images[1::2] += 110
    return images


def estimator(kind=FineTuneClassifier, model=None, **parameters):
    model = TinyNet() if model is None else model
    if isinstance(model, nn.Module) or parameters.get("weights") == "random":
        parameters["preprocessing"] = {"resize": SIZE, "crop": (SIZE, SIZE)}
    else:
        parameters["image_size"] = SIZE
    defaults = {"max_epochs": 1, "device": "cpu", "cache": None, "random_state": 0}
    return kind(model, **{**defaults, **parameters})


def assert_same_elsewhere(fitted, predict, network_input, path, images=None):
    """Compare onnxruntime's results with the estimator's, for batches of 1 and 5."""
    fitted.to_onnx(path)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [given], [result] = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type) == ("images", "tensor(uint8)")
    assert given.shape[1:] == [SIZE, SIZE, 3] and isinstance(given.shape[0], str)
    images = network_input if images is None else images
    for n in (1, 5):
        [found] = session.run([result.name], {"images": network_input[:n]})
        expected = predict(images[:n])
        assert found.shape == expected.shape
        assert_allclose(found, expected, atol=1e-4)
    return session


TARGETS = {
    "binary": np.array(["dark", "light"])[np.arange(N) % 2],
    "multi-class": np.arange(N) % 4,
    "multilabel": np.arange(N)[:, None] // [1, 2, 4] % 2,
}


@pytest.mark.parametrize(
    ("kind", "unfreeze"),
    [
        pytest.param("binary", "all", marks=pytest.mark.slow),
        ("multi-class", None),
        pytest.param("multilabel", "all", marks=pytest.mark.slow),
    ],
)
def test_a_classifier(kind, unfreeze, pixels, tmp_path):
    fitted = estimator(unfreeze=unfreeze).fit(pixels, TARGETS[kind])
    path = tmp_path / "c.onnx"
    session = assert_same_elsewhere(fitted, fitted.predict_proba, pixels, path)
    notes = session.get_modelmeta().custom_metadata_map
    assert json.loads(notes["classes"]) == fitted.classes_.tolist()
    assert json.loads(notes["preprocessing"])["crop"] == [SIZE, SIZE]
    # The network's own head of 1003 classes is not in the file.
    sizes = [list(one.dims) for one in onnx.load(path).graph.initializer]
    assert sizes and not any(1003 in size for size in sizes)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_a_classifier_without_probabilities(kind, pixels, tmp_path):
    fitted = estimator(unfreeze=None, loss="hinge").fit(pixels, TARGETS[kind])
    path = tmp_path / "c.onnx"
    session = assert_same_elsewhere(fitted, fitted.decision_function, pixels, path)
    assert session.get_outputs()[0].name == "decision_function"


@pytest.mark.slow
@pytest.mark.parametrize(("n_targets", "unfreeze"), [(0, "all"), (2, None)])
def test_a_regressor(n_targets, unfreeze, pixels, tmp_path):
    # Years and the like: float32 would not have the digits.
    targets = pixels.mean((1, 2)) + 50_000
    targets = targets[:, :n_targets] if n_targets else targets[:, 0]
    fitted = estimator(FineTuneRegressor, unfreeze=unfreeze).fit(pixels, targets)
    path = tmp_path / "r.onnx"
    session = assert_same_elsewhere(fitted, fitted.predict, pixels, path)
    assert session.get_outputs()[0].name == "targets"


@pytest.mark.slow
def test_a_head_with_hidden_layers(pixels, tmp_path):
    fitted = estimator(hidden_layer_sizes=(5,), dropout=0.5, head_epochs=2)
    fitted.fit(pixels, TARGETS["multi-class"])
    assert_same_elsewhere(fitted, fitted.predict_proba, pixels, tmp_path / "c.onnx")


@pytest.mark.slow
def test_a_network_whose_output_is_the_neck(pixels, tmp_path):
    fitted = estimator(model=HeadlessNet()).fit(pixels, TARGETS["binary"])
    assert_same_elsewhere(fitted, fitted.predict_proba, pixels, tmp_path / "c.onnx")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "weights", "unfreeze"),
    [
        ("efficientnet_lite0", "default", None),
        ("timm/test_vit", "random", "all"),
    ],
)
def test_published_networks(model, weights, unfreeze, pixels, tmp_path):
    parameters = {"model": model, "weights": weights, "unfreeze": unfreeze}
    fitted = estimator(**parameters, image_size=SIZE).fit(
        pixels, TARGETS["multi-class"]
    )
    # What the network sees of them: the file begins behind resizing and cropping.
    geometry = fitted._fitted_neck().preprocessing
    seen, _, _ = load_pixels(pixels, geometry, ExtractionSettings())
    assert_same_elsewhere(
        fitted, fitted.predict_proba, seen, tmp_path / "c.onnx", pixels
    )


@pytest.mark.slow
def test_the_estimator_is_left_as_it_was(pixels, tmp_path):
    fitted = estimator().fit(pixels, TARGETS["binary"])
    before = fitted.predict_proba(pixels)
    n_hooks = sum(len(one._forward_hooks) for one in fitted.body_.modules())
    state = torch.get_rng_state()
    fitted.to_onnx(tmp_path / "c.onnx")
    assert (fitted.predict_proba(pixels) == before).all()
    assert n_hooks == sum(len(one._forward_hooks) for one in fitted.body_.modules())
    assert (torch.get_rng_state() == state).all()


@pytest.mark.slow
def test_what_a_graph_cannot_do_is_refused(pixels, tmp_path):
    fitted = estimator(model=ChoosingNet()).fit(pixels, TARGETS["binary"])
    with pytest.raises(ValueError, match="ChoosingNet cannot be exported to ONNX: "):
        fitted.to_onnx(tmp_path / "c.onnx")
    fitted = estimator(model=CountingNet()).fit(pixels, TARGETS["binary"])
    with pytest.raises(ValueError, match=r"CountingNet cannot .* ONNX: .*len\(x\)"):
        fitted.to_onnx(tmp_path / "c.onnx")
    with pytest.raises(ValueError, match=r"CountingNet .* OpenVINO: .*len\(x\)"):
        fitted.to_openvino(tmp_path / "c.xml")
    fitted = estimator(test_time_augmentation="flip", unfreeze=None)
    fitted.fit(pixels, TARGETS["binary"])
    with pytest.raises(ValueError, match="'test_time_augmentation'.*Got 'flip'"):
        fitted.to_onnx(tmp_path / "c.onnx")
    with pytest.raises(ValueError, match="not fitted"):
        estimator().to_onnx(tmp_path / "c.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_the_extra(package, pixels, tmp_path, monkeypatch):
    fitted = estimator(unfreeze=None).fit(pixels, TARGETS["binary"])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*skdeepfeat\[onnx\]"):
        fitted.to_onnx(tmp_path / "c.onnx")


def test_relu6_is_not_exported_in_place():
    # In place, the exporter takes it apart: a quarter of its time for many of them.
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(inplace=True))
    exported = PixelsToResult(network)
    assert not exported.neck[1].inplace
