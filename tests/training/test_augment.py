"""Augmented batches: where their pixels come from, and what decides."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from skdeepfeat._random import seeded
from skdeepfeat.training import AUGMENTATIONS, Augmentation, crop_centre

SIZE = (6, 5)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (24, 9, 8, 3), dtype=np.uint8)


def augmented(kind, pixels, seed=0, **part):
    images = Augmentation(kind, SIZE)(pixels, np.random.default_rng(seed), **part)
    return images.permute(0, 2, 3, 1).numpy()


def windows_of(image):
    """Return every window of the size, by (top, left, mirrored)."""
    rows, columns = SIZE
    found = {}
    for top in range(image.shape[0] - rows + 1):
        for left in range(image.shape[1] - columns + 1):
            window = image[top : top + rows, left : left + columns]
            found[top, left, False] = window
            found[top, left, True] = window[:, ::-1]
    return found


def test_flip_crop_takes_every_window_mirrored_or_not(pixels):
    seen = set()
    for seed in range(20):
        for image, result in zip(
            pixels, augmented("flip_crop", pixels, seed), strict=True
        ):
            [place] = [
                place
                for place, window in windows_of(image).items()
                if np.array_equal(window, result)
            ]
            seen.add(place)
    assert seen == set(windows_of(pixels[0]))


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
    np.testing.assert_array_equal(augmented("none", pixels), wanted)


def test_centre_is_torchvisions(pixels):
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    wanted = v2.functional.center_crop(images, list(SIZE))
    assert torch.equal(crop_centre(images, SIZE), wanted)


def test_centre_of_what_is_smaller_is_all_of_it():
    images = torch.zeros(2, 3, 4, 9)
    assert crop_centre(images, SIZE).shape == (2, 3, 4, 5)


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
    for kind in ("none", "flip_crop"):
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
