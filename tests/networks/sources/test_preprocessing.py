"""Preprocessing comes from the weights; only its size can be overridden."""

import dataclasses
import math

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from sklearn.base import clone
from torch import nn
from torchvision import transforms as v1
from torchvision.transforms import _presets, v2

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor
from skdeepfeat._utils._preprocessing import Preprocessing
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.sources._timm import preprocessing_from_config


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


@pytest.mark.slow
def test_torchvisions_weights_bring_theirs():
    one = resolve_neck("resnet50", weights="IMAGENET1K_V1").preprocessing
    two = resolve_neck("resnet50", weights="IMAGENET1K_V2").preprocessing
    assert (one.resize, two.resize) == (256, 232)
    large = resolve_neck("efficientnet_v2_l").preprocessing
    assert large.crop == (480, 480)
    assert large.interpolation == "bicubic"
    assert large.mean == (0.5, 0.5, 0.5)
    # Without weights of a known name: those of the default weights.
    assert resolve_neck("resnet50", weights="random").preprocessing == two


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
    named = resolve_neck("resnet18", weights="random", preprocessing=given)
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
        resolve_neck("resnet18", weights="random", preprocessing=given)


MEAN, STD = (0.1, 0.2, 0.3), (0.3, 0.4, 0.5)
V1 = [v1.Resize(40), v1.CenterCrop(32), v1.ToTensor(), v1.Normalize(MEAN, STD)]
TRANSFORMS = {
    "preset": _presets.ImageClassification(
        crop_size=32, resize_size=40, mean=MEAN, std=STD
    ),
    "v1": v1.Compose(V1),
    "nested": v1.Compose([v1.Compose(V1[:2]), nn.Identity(), *V1[2:]]),
    "bicubic": v1.Compose([v1.Resize([40, 48], v1.InterpolationMode.BICUBIC), *V1[1:]]),
    "squash": v1.Compose([v1.Resize((32, 36)), *V1[2:]]),
    "small": v1.Compose([v1.Resize(20), *V1[1:]]),
    "not normalised": v1.Compose(V1[:3]),
    "v2": v2.Compose(
        [
            v2.RGB(), v2.Resize(40), v2.CenterCrop((32, 32)), v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD),
        ]
    ),
    "255": v2.Compose(
        [
            *V1[:2], v2.PILToTensor(), v2.ToDtype(torch.float32),
            v2.Normalize([m * 255 for m in MEAN], [s * 255 for s in STD]),
        ]
    ),
    **{
        f"timm {mode}": timm.data.create_transform(
            32, crop_mode=mode, crop_pct=0.9, mean=MEAN, std=STD
        )
        for mode in ("center", "squash", "border")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_read_exactly(name):
    """The pixels that a network sees are those of the transform itself."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((70, 50))
    extractor = PretrainedFeatureExtractor(
        nn.Conv2d(3, 4, 1),
        preprocessing=TRANSFORMS[name],
        cache=None,
        device="cpu",
        runtime="torch",
        layer="output",
        pooling="flatten",
    )
    network = extractor.model
    wanted = network(TRANSFORMS[name](image)[None]).flatten(1).detach().numpy()
    found = clone(extractor).fit_transform([image])
    # One level of 255, as resizing is torch's.
    np.testing.assert_allclose(found, wanted, atol=2e-2)


@pytest.mark.parametrize(
    ("transform", "pattern"),
    [
        (
            v1.Compose([*V1[:2], v1.RandomHorizontalFlip(), *V1[2:]]),
            "RandomHorizontalF",
        ),
        (v1.Compose([v1.RandomResizedCrop(32), *V1[2:]]), "RandomResizedCrop"),
        (v1.Compose([*V1[:2], v1.Grayscale(3), *V1[2:]]), "Grayscale"),
        (v1.Compose([*V1[:3], v1.Lambda(abs), V1[3]]), "Lambda"),
        (v1.Compose([V1[1], V1[0], *V1[2:]]), "CenterCrop"),
        (v1.Compose([V1[0], *V1[2:]]), "the same size"),
        (v1.Compose(V1[1:]), "CenterCrop"),
        (v1.Compose(V1[:2]), "numbers from 0 to 1"),
        (v1.Compose([*V1, V1[3]]), "Normalize"),
        (v1.Compose([*V1[:3], v1.Normalize([0.5] * 4, [0.5] * 4)]), "Normalize"),
        (v1.Compose([v1.Resize(40, max_size=60), *V1[1:]]), "Resize"),
        (v1.Compose([V1[2], v1.Resize(40, antialias=False), V1[1]]), "Resize"),
        (v1.Compose([abs]), "abs"),
        (v1.Compose([]), "the same size"),
        (timm.data.create_transform(32, is_training=True), "Random"),
    ],
)
def test_transforms_that_cannot_be_expressed(transform, pattern):
    with pytest.raises(ValueError, match=f"'preprocessing' .*{pattern}") as error:
        resolve_neck(nn.Conv2d(3, 4, 3), preprocessing=transform)
    assert len(str(error.value)) < 500


def test_other_presets_are_refused():
    video = _presets.VideoClassification(crop_size=(32, 32), resize_size=(40,))
    for other in (video, _presets.SemanticSegmentation(resize_size=32)):
        with pytest.raises(TypeError, match="'preprocessing' .*Compose"):
            resolve_neck(nn.Conv2d(3, 4, 3), preprocessing=other)


def test_named_weights_take_their_own():
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    plain = resolve_neck("resnet18", image_size=64).preprocessing
    given = resolve_neck(
        "resnet18", weights=weights, preprocessing=weights.transforms(), image_size=64
    )
    assert given.preprocessing == plain
    with pytest.raises(ValueError, match="'preprocessing' .*None with named weights"):
        resolve_neck("resnet18", preprocessing=GIVEN)


@pytest.mark.parametrize("size", [[32, 40], (32, 40), np.array([32, 40])])
def test_pairs_of_any_kind(size):
    extractor = PretrainedFeatureExtractor(image_size=size, cache=None, device="cpu")
    assert extractor.fit(["x"]).get_feature_names_out().shape == (1280,)
    assert clone(extractor)._resolve_neck().preprocessing.crop == (32, 40)
    classifier = FineTuneClassifier(image_size=size)
    classifier._validate_params()
    assert classifier._resolve_neck().preprocessing.crop == (32, 40)


def test_a_number_without_axes():
    assert resolve_neck(image_size=np.array(32)).preprocessing.crop == (32, 32)
    with pytest.raises(TypeError, match="'image_size'"):
        resolve_neck(image_size=np.array(32.5))


def test_a_configuration_as_timm_keeps_it():
    config = timm.get_pretrained_cfg("test_vit")
    extractor = PretrainedFeatureExtractor(
        "test_vit", weights="random", preprocessing=config, cache=None, device="cpu"
    )
    assert extractor.fit(["x"])._resolve_neck().preprocessing == (
        resolve_neck("test_vit", weights="random").preprocessing
    )


def test_a_modules_own_configuration_is_used():
    assert resolve_neck(torch.nn.Conv2d(3, 4, 3)).preprocessing == Preprocessing(
        resize=256, crop=(224, 224)
    )
    module = timm.create_model("test_vit")
    assert resolve_neck(module).preprocessing == (
        resolve_neck("test_vit", weights="random").preprocessing
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", "abc"), ("mean", (1, 2)), ("mean", 0.5), ("mean", (math.nan, 0, 0)),
        ("std", (0, 0, 0)), ("std", ("a", "b", "c")), ("interpolation", "lancos"),
        ("interpolation", 3), ("crop", (32.0, 32)), ("resize", 40.5), ("resize", 0),
        ("resize", None), ("crop_mode", "centre"), ("fill", 300), ("fill", (0, 0.5, 0)),
    ],
)  # fmt: skip
def test_each_field_is_checked(name, value):
    fields = {"resize": 32, "crop": (32, 32), name: value}
    given = [fields, Preprocessing(**fields)]
    for preprocessing in given:
        with pytest.raises(
            (TypeError, ValueError), match=f"^The 'preprocessing' .* as '{name}'"
        ):
            resolve_neck(nn.Conv2d(3, 4, 3), preprocessing=preprocessing)


def test_fields_of_numpy_and_torchvision_are_taken():
    fields = {
        "resize": np.int64(40),
        "crop": np.int64(32),
        "mean": np.full(3, 0.5),
        "std": torch.full((3,), 0.5),
        "interpolation": v1.InterpolationMode.BICUBIC,
    }
    found = resolve_neck(nn.Conv2d(3, 4, 3), preprocessing=fields).preprocessing
    assert found == Preprocessing(40, (32, 32), "bicubic", (0.5,) * 3, (0.5,) * 3)


def test_a_damaged_configuration_of_timm_is_one_error():
    with pytest.raises(ValueError, match="^The 'preprocessing' .* timm can read"):
        resolve_neck(nn.Conv2d(3, 4, 3), preprocessing={"input_size": 3})
