"""`fit_to_network` against the transforms that the weights themselves come with."""

import dataclasses

import numpy as np
import pytest
import timm
import timm.data
from PIL import Image
from sklearn.utils.fixes import parse_version
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from skdeepfeat._utils._preprocessing import Preprocessing
from skdeepfeat.images import _geometry, fit_to_network

SHAPES = [
    (1, 1),
    (1, 40),
    (40, 1),
    (2, 333),
    (17, 16),
    (31, 32),
    (64, 64),
    (65, 64),
    (101, 333),
    (480, 361),
]
# Up to 1.0.30, timm's centre of a crop that is not square was another one.
TIMM_KEEPS_RATIO = parse_version("1.0.31")
FILTERS = ["bilinear", "bicubic", "nearest", "lanczos"]


def random_image(shape, seed):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def images(shape):
    yield random_image((*shape, 3), seed=sum(shape))
    yield random_image(shape, seed=sum(shape) + 1)


def as_rgb(pixels):
    return Image.fromarray(pixels).convert("RGB")


def to_uint8(tensor):
    return np.rint(tensor.permute(1, 2, 0).numpy() * 255).astype(np.uint8)


def timm_pixels(pixels, **options):
    transform = timm.data.create_transform(
        is_training=False, normalize=False, **options
    )
    return transform(as_rgb(pixels)).permute(1, 2, 0).numpy()


def assert_same(fitted, expected, interpolation):
    """Compare with Pillow's pixels: what torch resizes may be rounded the other way."""
    assert fitted.dtype == np.uint8 and fitted.shape == expected.shape
    if interpolation not in ("bilinear", "bicubic"):
        np.testing.assert_array_equal(fitted, expected)
        return
    difference = np.abs(fitted.astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.05


def pairs(i, firsts, seconds):
    """Pair each of `firsts` with one of `seconds`, others for the next `i`.

    Over all shapes, each value then meets each value of the other options, without a
    test for each of all combinations.
    """
    return [(one, seconds[(i + j) % len(seconds)]) for j, one in enumerate(firsts)]


@pytest.mark.parametrize("i", range(len(SHAPES)), ids=lambda i: str(SHAPES[i]))
def test_equals_torchvision(i):
    sizes = [(64, 56), (57, 57), (40, 64)]
    for interpolation, (resize, crop) in pairs(i, FILTERS, sizes):
        reference = ImageClassification(
            crop_size=crop,
            resize_size=resize,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            interpolation=InterpolationMode(interpolation),
        )
        preprocessing = Preprocessing(resize, (crop, crop), interpolation)
        for pixels in images(SHAPES[i]):
            expected = to_uint8(reference(as_rgb(pixels)))
            fitted = fit_to_network(pixels, preprocessing)
            assert fitted.dtype == np.uint8
            assert fitted.flags.c_contiguous and fitted.flags.writeable
            assert_same(fitted, expected, interpolation)


def assert_equals_timm(shape, preprocessing, **options):
    for pixels in images(shape):
        expected = timm_pixels(
            pixels, interpolation=preprocessing.interpolation, **options
        )
        fitted = fit_to_network(pixels, preprocessing)
        assert_same(fitted, expected, preprocessing.interpolation)


@pytest.mark.parametrize("i", range(len(SHAPES)), ids=lambda i: str(SHAPES[i]))
def test_equals_timm_center(i):
    filters = [*FILTERS, "box", "hamming"]
    for interpolation, crop_pct in pairs(i, filters, [0.875, 0.95, 1.0]):
        preprocessing = Preprocessing(int(56 / crop_pct), (56, 56), interpolation)
        assert_equals_timm(SHAPES[i], preprocessing, input_size=56, crop_pct=crop_pct)


@pytest.mark.parametrize("crop_mode", ["center", "border"])
def test_equals_timm_where_the_crop_is_not_square(crop_mode):
    if crop_mode == "center" and parse_version(timm.__version__) < TIMM_KEEPS_RATIO:
        pytest.skip(f"timm {timm.__version__} resizes otherwise for such a crop")
    fill = (124, 116, 104) if crop_mode == "border" else (0, 0, 0)
    for shape in SHAPES[4:]:
        for crop in [(56, 84), (84, 56), (32, 96)]:
            # 0.8 of these sides is whole, so that one int fits both.
            resize = int(min(crop) / 0.8)
            assert [c / 0.8 for c in crop] == [resize * c / min(crop) for c in crop]
            preprocessing = Preprocessing(
                resize, crop, "bicubic", crop_mode=crop_mode, fill=fill
            )
            assert_equals_timm(
                shape,
                preprocessing,
                input_size=(3, *crop),
                crop_pct=0.8,
                crop_mode=crop_mode,
            )


@pytest.mark.parametrize("crop", [(56, 56), (56, 84)])
def test_equals_timm_squash(crop):
    for i, shape in enumerate(SHAPES):
        crop_pct = [0.875, 1.0][i % 2]
        resize = tuple(int(side / crop_pct) for side in crop)
        assert_equals_timm(
            shape,
            Preprocessing(resize, crop, "bicubic"),
            input_size=(3, *crop),
            crop_pct=crop_pct,
            crop_mode="squash",
        )


def test_equals_timm_border():
    fill = (124, 116, 104)  # ImageNet's mean, rounded as timm does
    for shape in [shape for shape in SHAPES if min(shape) > 2]:
        for crop_pct in (0.875, 1.0):
            preprocessing = Preprocessing(
                int(56 / crop_pct), (56, 56), "bicubic", crop_mode="border", fill=fill
            )
            assert_equals_timm(
                shape,
                preprocessing,
                input_size=56,
                crop_pct=crop_pct,
                crop_mode="border",
            )


def test_border_mode_keeps_a_thin_image_where_timm_fails():
    preprocessing = Preprocessing(56, (56, 56), crop_mode="border", fill=(9, 9, 9))
    fitted = fit_to_network(np.full((1, 400), 200, dtype=np.uint8), preprocessing)
    assert (fitted[28 - 1] == 200).all() or (fitted[28] == 200).all()
    assert (fitted == 200).sum() == 56 * 3


@pytest.mark.parametrize(
    ("shape", "interpolation"),
    [
        ((30, 900), "bilinear"),
        ((900, 30), "bicubic"),
        ((30, 900), "nearest"),
        ((900, 30), "lanczos"),
    ],
)
def test_strips_give_nearly_the_same_without_the_whole_resize(
    shape, interpolation, monkeypatch
):
    ramp = np.linspace(0, 255, shape[0])[:, None] / 2
    ramp = ramp + np.linspace(0, 255, shape[1])[None, :] / 2
    preprocessing = Preprocessing(64, (56, 56), interpolation)
    whole = fit_to_network(ramp.astype(np.uint8), preprocessing)
    monkeypatch.setattr(_geometry, "_MAX_RESIZED", 0)
    window = fit_to_network(ramp.astype(np.uint8), preprocessing)
    # Steps of the ramp are up to 8; Pillow keeps a box in single precision and
    # chooses the order of its two passes by the sizes.
    assert np.abs(whole.astype(int) - window).max() <= 5
    assert np.abs(whole.astype(int) - window).mean() < 0.5


@pytest.mark.parametrize("shape", [(1, 300_000), (300_000, 1, 3), (2, 300_000)])
def test_a_strip_needs_no_memory_for_what_is_cut_off(shape):
    # Resized as a whole, the first would take 256 * 256 * 300,000 * 4 bytes.
    pixels = np.full(shape, 77, dtype=np.uint8)
    fitted = fit_to_network(pixels, Preprocessing(256, (224, 224), "bicubic"))
    assert fitted.shape == (224, 224, 3)
    assert (fitted == 77).all()


def test_the_input_is_not_changed_nor_shared(rgb):
    before = rgb.copy()
    height, width = rgb.shape[:2]
    fitted = fit_to_network(rgb, Preprocessing((height, width), (height, width)))
    np.testing.assert_array_equal(fitted, before)
    np.testing.assert_array_equal(rgb, before)


@pytest.mark.parametrize("size", [(30, 50), (150, 200)], ids=["smaller", "larger"])
def test_torch_keeps_the_order_of_the_values(size, rgb):
    # If it took the channels for planes, it would resize half as fast.
    resized = _geometry._resize_array_in_torch(rgb, size, "bicubic")
    assert resized.shape == (*size, 3)
    assert resized.flags.c_contiguous


def test_read_only_pixels_are_resized_without_a_warning(rgb):
    preprocessing = Preprocessing(32, (28, 28), "bicubic")
    expected = fit_to_network(rgb, preprocessing)
    read_only = np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape)
    fitted = fit_to_network(read_only, preprocessing)
    np.testing.assert_array_equal(fitted, expected)
    assert fitted.flags.writeable
    np.testing.assert_array_equal(read_only, rgb)


def test_a_larger_crop_keeps_the_share_of_the_picture():
    pixels = random_image((300, 300, 3), seed=5)
    preprocessing = Preprocessing(64, (56, 56))
    larger = preprocessing.with_crop(112)
    assert fit_to_network(pixels, larger).shape == (112, 112, 3)
    assert dataclasses.asdict(larger)["resize"] == 128
