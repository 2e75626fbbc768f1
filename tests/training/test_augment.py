"""Augmented batches: where their pixels come from, and what decides."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2

from skdeepfeat._utils._random import seeded
from skdeepfeat.training import AUGMENTATIONS, Augmentation, _augment, crop_center

SIZE = (6, 5)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (24, 9, 8, 3), dtype=np.uint8)


def augmented(kind, pixels, seed=0, **part):
    images = Augmentation(kind, SIZE)(pixels, np.random.default_rng(seed), **part)
    return images.permute(0, 2, 3, 1).numpy()


def test_flip_crop_takes_parts_of_every_size_place_and_side():
    # Red grows to the right, green downwards: a part tells where it was taken.
    height, width = 96, 128
    ramp = np.zeros((1, height, width, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(width), np.arange(height)[:, None]
    augment = Augmentation("flip_crop", (48, 64))
    results = augment(np.repeat(ramp, 400, axis=0), np.random.default_rng(0))
    red, green = results[:, 0].double(), results[:, 1].double()
    # In the middle, so that the edges' rounding does not count.
    columns = (red[:, 24, 54] - red[:, 24, 10]) / 44 * 64
    rows = (green[:, 40, 32] - green[:, 8, 32]) / 32 * 48
    mirrored = columns < 0
    areas = (columns.abs() * rows / (height * width)).numpy()
    assert 0.45 < mirrored.double().mean() < 0.55
    assert 0.47 < areas.min() < 0.55 and 0.93 < areas.max() < 1.03
    stretch = (columns.abs() / width / (rows / height)).numpy()
    assert 0.7 < stretch.min() < 0.8 and 1.25 < stretch.max() < 1.4
    assert red.min() <= 1 and red.max() >= width - 2
    assert green.min() <= 1 and green.max() >= height - 2
    assert not results[:, 2].any()


def test_flip_crop_is_pillows_resize_of_a_box(pixels, monkeypatch):
    boxes = np.tile([1.5, 0.25, 6.5, 7.0], (24, 1))
    monkeypatch.setattr(_augment, "_random_boxes", lambda *arguments: boxes)
    for image, result in zip(pixels, augmented("flip_crop", pixels), strict=True):
        part = Image.fromarray(image).resize(
            SIZE[::-1], Image.Resampling.BILINEAR, box=tuple(boxes[0])
        )
        sides = np.asarray(part), np.asarray(part)[:, ::-1]
        assert any(np.array_equal(result, side) for side in sides)


def test_flip_crop_leaves_the_source_alone(pixels):
    before = pixels.copy()
    augmented("flip_crop", pixels)[:] = 0
    np.testing.assert_array_equal(pixels, before)


def test_one_generator_state_is_one_batch(pixels):
    first, again = (augmented("flip_crop", pixels, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, augmented("flip_crop", pixels, seed=4))


@pytest.mark.parametrize("n_parts", [2, 3])
def test_parts_are_those_of_the_whole(pixels, n_parts):
    whole = augmented("flip_crop", pixels)
    for rank in range(n_parts):
        positions = np.arange(len(pixels))[rank::n_parts]
        part = augmented(
            "flip_crop", pixels[positions], n_total=len(pixels), positions=positions
        )
        np.testing.assert_array_equal(part, whole[positions])


@pytest.mark.parametrize("kind", [*AUGMENTATIONS, v2.RandomHorizontalFlip()])
def test_a_part_may_be_empty(pixels, kind):
    nowhere = np.arange(0)
    part = augmented(kind, pixels[nowhere], n_total=24, positions=nowhere)
    assert part.shape == (0, *SIZE, 3)


def test_none_is_the_centre(pixels):
    wanted = pixels[:, 2:8, 2:7]  # margins of 3 rows and 3 columns, rounded to even
    np.testing.assert_array_equal(augmented(None, pixels), wanted)


def test_centre_is_torchvisions(pixels):
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    wanted = v2.functional.center_crop(images, list(SIZE))
    assert torch.equal(crop_center(images, SIZE), wanted)


def test_centre_of_what_is_smaller_is_all_of_it():
    images = torch.zeros(2, 3, 4, 9)
    assert crop_center(images, SIZE).shape == (2, 3, 4, 5)


def test_trivial_draws_for_each_image_and_under_a_seed(pixels):
    same = np.repeat(pixels[:1], 24, axis=0)
    torchs = torch.get_rng_state()

    def draw(seed):
        with seeded(seed):
            return augmented("trivial", same)

    first, again, other = draw(1), draw(1), draw(2)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len({image.tobytes() for image in first}) > 12
    assert torch.equal(torch.get_rng_state(), torchs)


def test_v2_transform_is_cut_to_the_centre(pixels):
    wanted = pixels[:, :, ::-1][:, 2:8, 2:7]
    result = augmented(v2.RandomHorizontalFlip(1.0), pixels)
    np.testing.assert_array_equal(result, wanted)


def test_v2_transform_may_make_floats(pixels):
    to_float = v2.ToDtype(torch.float32, scale=True)
    result = augmented(to_float, pixels)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, pixels[:, 2:8, 2:7] / 255, rtol=1e-6)


def test_memory_mapped_pixels(pixels, tmp_path):
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    rows = np.array([3, 1])
    for kind in (None, "flip_crop"):
        np.testing.assert_array_equal(
            augmented(kind, mapped[rows]), augmented(kind, pixels[rows])
        )


@pytest.mark.parametrize(
    ("transform", "found"),
    [
        (lambda images: images[:, :, :4], r"a tensor of shape \(24, 3, 4, 5\)"),
        (lambda images: images[:5], r"a tensor of shape \(5, 3, 6, 5\)"),
        (lambda images: images[:, :1], r"a tensor of shape \(24, 1, 6, 5\)"),
        (lambda images: images[0], r"a tensor of shape \(3, 9, 8\)"),
        (lambda images: images.sum(), r"a tensor of shape \(\)"),
        (lambda images: (images, images), "an object of type tuple"),
        (lambda images: images.numpy(), "an object of type ndarray"),
        (lambda images: None, "an object of type NoneType"),
    ],
)
def test_a_wrong_result_is_one_clear_error(pixels, transform, found):
    message = rf"The 'augment' parameter .*\(24, 3, 6, 5\).* Got {found} instead"
    with pytest.raises(ValueError, match=message):
        augmented(transform, pixels)


def test_an_unknown_augmentation_is_not_taken_for_another():
    with pytest.raises(ValueError, match="'augment' parameter.*Did you mean 'trivial'"):
        Augmentation("trivail", SIZE)


def test_a_device_resizes_the_same_parts():
    rng = np.random.default_rng(0)
    photo = load_sample_image("china.jpg")
    pixels = np.stack([photo[y : y + 256, x : x + 256] for y, x in [(0, 0), (99, 200)]])
    pixels = np.repeat(pixels, 4, axis=0)
    draws = _augment.draw_parts(rng, len(pixels))
    boxes = _augment._random_boxes(draws[:, :4], (256, 256), (224, 224), (0.5, 1.0))
    flips = draws[:, 4] < 0.5
    assert 0 < flips.sum() < len(flips)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    found = _augment.resized_parts(images, boxes, flips, (224, 224))
    expected = _augment.random_parts(pixels, (224, 224), draws, (0.5, 1.0))
    assert found.dtype == torch.uint8
    difference = (found.float() - expected.float()).abs()
    # Pillow smooths what it makes smaller.
    assert difference.mean() < 3
    moved = _augment.random_parts(
        pixels, (224, 224), draws + [0, 0, 0.01, 0, 0], (0.5, 1.0)
    )
    assert difference.mean() < (moved.float() - expected.float()).abs().mean()
    # A box of the result's own size needs no smoothing.
    boxes[:] = [16, 8, 240, 232]
    exact = _augment.resized_parts(images, boxes, flips, (224, 224)).numpy()
    for one, image, is_mirrored in zip(exact, pixels, flips, strict=True):
        part = image[8:232, 16:240].transpose(2, 0, 1)
        np.testing.assert_array_equal(one, part[..., ::-1] if is_mirrored else part)
