"""Preprocessing comes from the weights; only its size can be overridden."""

import dataclasses
import math

import pytest
import timm
import torch
import torchvision

from skdeepfeat._preprocessing import Preprocessing
from skdeepfeat.necks import resolve_neck
from skdeepfeat.necks._timm import preprocessing_from_config


def test_the_embedded_networks_use_one_half():
    for i, (size, share) in enumerate([(224, 0.875), (240, 0.882), (260, 0.89)]):
        found = resolve_neck(f"efficientnet_lite{i}").preprocessing
        assert found == Preprocessing(
            resize=math.floor(size / share),
            crop=(size, size),
            interpolation="bicubic",
            mean=(0.5,) * 3,
            std=(0.5,) * 3,
        )


def test_torchvisions_weights_bring_theirs():
    one = resolve_neck("resnet50", weights="IMAGENET1K_V1").preprocessing
    two = resolve_neck("resnet50", weights="IMAGENET1K_V2").preprocessing
    assert (one.resize, two.resize) == (256, 232)
    large = resolve_neck("efficientnet_v2_l").preprocessing
    assert large.crop == (480, 480)
    assert large.interpolation == "bicubic"
    assert large.mean == (0.5, 0.5, 0.5)
    # Without weights of a known name: those of the default weights.
    assert resolve_neck("resnet50", weights=None).preprocessing == two


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        # shorter side, rounded down
        "vit_tiny_patch16_224": {"resize": 248, "crop_mode": "center"},
        # both sides, the aspect ratio given up
        "convnext_tiny.in12k_ft_in1k_384": {"resize": (384, 384), "crop": (384, 384)},
    }.items(),
)
def test_timms_evaluation(name, expected):
    found = dataclasses.asdict(resolve_neck(name).preprocessing)
    assert {key: found[key] for key in expected} == expected


def test_timms_border_mode_pads_with_the_mean():
    found = preprocessing_from_config(
        {
            "input_size": (3, 200, 200),
            "crop_pct": 0.9,
            "crop_mode": "border",
            "mean": (0.5, 0.25, 0.0),
        }
    )
    assert found.crop_mode == "border"
    assert found.fill == (128, 64, 0)
    assert found.resize == 222


def test_image_size_keeps_the_share_of_the_picture():
    neck = resolve_neck("resnet50", weights="IMAGENET1K_V1", image_size=112)
    assert neck.preprocessing == Preprocessing(resize=128, crop=(112, 112))
    neck = resolve_neck("resnet50", weights="IMAGENET1K_V1", image_size=(112, 224))
    assert neck.preprocessing.crop == (112, 224)


GIVEN = Preprocessing(resize=40, crop=(32, 32), mean=(0.1,) * 3, std=(0.3,) * 3)


@pytest.mark.parametrize(
    "given",
    [
        GIVEN,
        dataclasses.asdict(GIVEN),
        {"resize": 40, "crop": 32, "mean": [0.1] * 3, "std": [0.3] * 3},
        {
            "input_size": (3, 32, 32),
            "crop_pct": 0.8,
            "mean": (0.1,) * 3,
            "std": (0.3,) * 3,
            "interpolation": "bilinear",
        },
        torchvision.transforms._presets.ImageClassification(
            crop_size=32, resize_size=40, mean=(0.1,) * 3, std=(0.3,) * 3
        ),
    ],
    ids=["record", "dict", "short dict", "timm", "torchvision"],
)
def test_forms_of_the_parameter(given):
    module = torch.nn.Conv2d(3, 4, 3)
    assert resolve_neck(module, preprocessing=given).preprocessing == GIVEN
    named = resolve_neck("resnet18", weights=None, preprocessing=given)
    assert named.preprocessing == GIVEN
    larger = resolve_neck(module, preprocessing=given, image_size=64).preprocessing
    assert (larger.resize, larger.crop) == (80, (64, 64))


@pytest.mark.parametrize(
    ("given", "error", "pattern"),
    [
        ({"crop_size": 3}, ValueError, "a dict with keys of resize, crop"),
        ({"resize": 3}, ValueError, "has at least 'crop'"),
        ({"crop": "224"}, TypeError, "Got '224'"),
        (lambda image: image, TypeError, "'preprocessing' .*weights.transforms"),
        ("imagenet", TypeError, "Got 'imagenet' instead"),
    ],
)
def test_forms_it_does_not_have(given, error, pattern):
    with pytest.raises(error, match=pattern):
        resolve_neck("resnet18", weights=None, preprocessing=given)


def test_a_modules_own_configuration_is_used():
    assert resolve_neck(torch.nn.Conv2d(3, 4, 3)).preprocessing == Preprocessing(
        resize=256, crop=(224, 224)
    )
    module = timm.create_model("test_vit")
    assert resolve_neck(module).preprocessing == (
        resolve_neck("test_vit", weights=None).preprocessing
    )
