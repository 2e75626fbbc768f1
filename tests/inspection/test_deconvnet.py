"""The deconvnet agrees with captum, and with gradients where there is no ReLU."""

import numpy as np
import pytest
import timm
import torch
from networks import fix_weights
from numpy.testing import assert_allclose, assert_array_equal
from relu_networks import (
    PREPROCESSING,
    FunctionalNet,
    ReluNet,
    make_extractor,
    normalized,
    tiny_transformer,
    up_to,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FineTuneClassifier,
    PretrainedFeatureExtractor,
)
from skdeepfeat.inspection import deconvnet


def strongest(values):
    """Return the position of the largest value of each image."""
    places = values.flatten(1).argmax(1)
    return torch.stack([places // values.shape[2], places % values.shape[2]], 1)


def by_captum(method, model, inputs, feature):
    places = strongest(model(inputs)[:, feature])
    targets = [(feature, *map(int, place)) for place in places]
    expected = method(model).attribute(inputs.requires_grad_(), target=targets)
    return expected.permute(0, 2, 3, 1).detach().numpy()


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("layer", ["conv1", "act1", "conv2", "conv3", "act3"])
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_it_is_that_of_captum(planted, layer, guided):
    attr = pytest.importorskip("captum.attr")
    images = planted[0][:6]
    method = attr.GuidedBackprop if guided else attr.Deconvolution
    model = up_to(ReluNet(inplace=False), layer)
    expected = by_captum(method, model, normalized(images), 2)
    found = deconvnet(make_extractor(), images, layer, 2, guided=guided)
    assert found.dtype == np.float32
    assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_a_resnet_as_captum_sees_it(guided):
    attr = pytest.importorskip("captum.attr")
    method = attr.GuidedBackprop if guided else attr.Deconvolution
    network = timm.create_model("resnet10t", pretrained=False).eval()
    fix_weights(network, scale=0.3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    preprocessing = {**PREPROCESSING, "resize": (32, 32), "crop": (32, 32)}
    extractor = PretrainedFeatureExtractor(
        network, preprocessing=preprocessing, cache=None
    )
    found = deconvnet(extractor, images, "layer2", 5, guided=guided)
    assert np.abs(found).max() > 0
    parts = [network.conv1, network.bn1, network.act1, network.maxpool]
    model = nn.Sequential(*parts, network.layer1, network.layer2)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    expected = by_captum(method, model, normalized(images), 5)
    assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("guided", [False, True])
def test_functions_count_as_modules_do(planted, guided):
    images = planted[0][:4]
    for layer in ("conv2", "conv3", "neck", "output"):
        expected = deconvnet(make_extractor(), images, layer, 1, guided=guided)
        found = deconvnet(
            make_extractor(FunctionalNet()), images, layer, 1, guided=guided
        )
        assert_allclose(found, expected, atol=1e-6)


def test_relu6_stops_guided_signals_where_it_is_flat():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1, bias=False)
            self.act = nn.ReLU6(inplace=True)
            nn.init.constant_(self.conv.weight, 20 / 3)

        def forward(self, x):
            return self.act(self.conv(x))

    preprocessing = {
        "resize": (2, 2), "crop": (2, 2), "mean": (0,) * 3, "std": (1,) * 3,
    }  # fmt: skip
    images = np.zeros((2, 2, 2, 3), np.uint8)
    images[0, 0, 1], images[1, 1, 0] = 25, 255  # 2 and 20 before the limit of 6
    extractor = PretrainedFeatureExtractor(
        Scaled(), preprocessing=preprocessing, cache=None, layer="act"
    )
    free = deconvnet(extractor, images, "act", 0)
    assert_array_equal(np.argwhere(free.any(3)), [[0, 0, 1], [1, 1, 0]])
    guided = deconvnet(extractor, images, "act", 0, guided=True)
    assert_array_equal(np.argwhere(guided.any(3)), [[0, 0, 1]])


def test_without_activations_it_is_the_gradient(planted):
    images = planted[0][:5]
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, padding=1)
    )
    fix_weights(network)
    inputs = normalized(images).requires_grad_()
    values = network(inputs)[:, 3]
    values.flatten(1).max(1).values.sum().backward()
    found = deconvnet(make_extractor(network), images, "2", 3)
    assert_allclose(found, inputs.grad.permute(0, 2, 3, 1), atol=1e-5)


def test_whose_network_it_is(planted):
    images, labels, _ = planted
    network = ReluNet().requires_grad_(False)
    expected = deconvnet(make_extractor(network), images[:3], "conv3", 0)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert network.act1.inplace
    assert not any(module._forward_hooks for module in network.modules())
    pipe = make_pipeline(make_extractor(network, layer="conv1"), LogisticRegression())
    pipe.set_params(logisticregression__max_iter=10_000).fit(images, labels)
    assert_array_equal(deconvnet(pipe, images[:3], "conv3", 0), expected)
    clf = FineTuneClassifier(
        network, preprocessing=PREPROCESSING, unfreeze=None, cache=None
    ).fit(images, labels)
    assert_array_equal(deconvnet(clf, images[:3], "conv3", 0), expected)
    clf.set_params(unfreeze="all", max_epochs=1, learning_rate=0.01).fit(images, labels)
    assert not np.allclose(deconvnet(clf, images[:3], "conv3", 0), expected)


def test_broken_images(planted, tmp_path):
    images = planted[0]
    extractor = make_extractor()
    mixed = [images[0], str(tmp_path / "missing.jpg"), images[1]]
    with pytest.raises(BadImageError, match="index 1"):
        deconvnet(extractor, mixed, "conv3", 0)
    extractor.set_params(on_error="nan")
    with pytest.warns(BadImageWarning):
        found = deconvnet(extractor, mixed, "conv3", 0)
    assert np.isnan(found[1]).all()
    assert_array_equal(found[[0, 2]], deconvnet(extractor, images[:2], "conv3", 0))


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Hardswish, nn.LeakyReLU, nn.ELU])
def test_other_activations_are_refused(planted, activation):
    extractor = make_extractor(ReluNet(activation=activation))
    with pytest.raises(ValueError, match="^The 'estimator' parameter.*gradcam"):
        deconvnet(extractor, planted[0][:1], "conv2", 0)
    # No activation is computed before this layer.
    assert deconvnet(extractor, planted[0][:1], "conv1", 0).any()


def test_transformers_are_refused(planted):
    extractor = make_extractor(tiny_transformer())
    with pytest.raises(ValueError, match="^The 'estimator' parameter.*gradcam"):
        deconvnet(extractor, planted[0][:1], "blocks.0", 0)


def test_gates_of_whole_channels_pass_their_gradient():
    network = timm.create_model("regnety_002", pretrained=False).eval()
    fix_weights(network, scale=0.3)
    extractor = PretrainedFeatureExtractor(network, image_size=32, cache=None)
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    assert deconvnet(extractor, images, "s1", 0).any()


@pytest.mark.parametrize(
    ("layer", "feature", "parameter"),
    [
        ("conv4", 0, "layer"),
        (None, 0, "layer"),
        (["conv1"], 0, "layer"),
        (9, 0, "layer"),
        ("conv1", 6, "feature"),
        ("conv1", -1, "feature"),
        ("conv1", 1.0, "feature"),
        ("conv1", True, "feature"),
        ("neck", 8, "feature"),
    ],
)
def test_what_cannot_be(planted, layer, feature, parameter):
    with pytest.raises((TypeError, ValueError), match=f"^The '{parameter}' parameter"):
        deconvnet(make_extractor(), planted[0][:1], layer, feature)


def test_estimators_without_a_network(planted):
    flat = planted[0].reshape(40, -1)
    model = LogisticRegression(max_iter=10_000).fit(flat / 255, planted[1])
    with pytest.raises(ValueError, match="^The 'estimator' parameter"):
        deconvnet(model, planted[0][:1], "conv1", 0)
