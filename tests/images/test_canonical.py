"""Arrays of every dtype and layout come to the same canonical pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skdeepfeat._utils._digests import digest_pixels
from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images._canonical import canonical_image, canonical_pixels

ALL_VALUES = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_every_8_bit_value_survives_as_a_float(dtype):
    floats = (ALL_VALUES.astype(np.float64) / 255).astype(dtype)
    np.testing.assert_array_equal(canonical_image(floats), ALL_VALUES)


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_16_bit_values_are_scaled_by_65535(dtype):
    values = np.arange(65536, dtype=np.uint32).reshape(256, 256)
    expected = np.rint(values * (255 / 65535))
    np.testing.assert_array_equal(canonical_image(values.astype(dtype)), expected)


def test_bool_is_black_and_white():
    image = canonical_image(np.array([[True, False]]))
    assert image.dtype == np.uint8
    assert image.tolist() == [[255, 0]]


def test_channels_are_kept_dropped_or_composited_over_white(rgb, gray):
    np.testing.assert_array_equal(canonical_image(rgb), rgb)
    np.testing.assert_array_equal(canonical_image(gray[:, :, None]), gray)
    alpha = np.random.default_rng(2).integers(0, 256, rgb.shape[:2], dtype=np.uint8)
    share = alpha[:, :, None] / 255
    expected = np.rint(rgb * share + 255 * (1 - share))
    np.testing.assert_array_equal(canonical_image(np.dstack([rgb, alpha])), expected)
    grays = np.rint(rgb[:, :, 0] * share[..., 0] + 255 * (1 - share[..., 0]))
    np.testing.assert_array_equal(
        canonical_image(np.dstack([rgb[:, :, 0], alpha])), grays
    )
    opaque = np.dstack([rgb, np.full(rgb.shape[:2], 255, dtype=np.uint8)])
    np.testing.assert_array_equal(canonical_image(opaque), rgb)


def test_compositing_is_exact_for_every_color_and_alpha():
    color, alpha = np.meshgrid(np.arange(256), np.arange(256))
    pair = np.dstack([color, alpha]).astype(np.uint8)
    expected = np.rint((color * alpha + 255 * (255 - alpha)) / 255)
    np.testing.assert_array_equal(canonical_image(pair), expected)


def test_result_is_contiguous_and_the_input_is_left_alone(rgb):
    strided = np.asfortranarray(rgb)[::2, ::-1]
    before = strided.copy()
    result = canonical_image(strided)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, before)
    np.testing.assert_array_equal(strided, before)


@pytest.mark.parametrize("n_channels", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_a_block_is_its_images(n_channels, dtype):
    rng = np.random.default_rng(3)
    shape = (5, 6, 4, n_channels) if n_channels else (5, 6, 4)
    block = rng.random(shape)
    if dtype is not np.float32:
        block = block * (1 if dtype is bool else np.iinfo(dtype).max) + 0.5
    block = block.astype(dtype)
    whole = canonical_pixels(block, has_channels=bool(n_channels))
    for one, image in zip(whole, block, strict=True):
        np.testing.assert_array_equal(one, canonical_image(image))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[0.0, 255.0]], ["[0, 1]", "image / 255", "from 0 to 255"]),
        ([[-1.0, 1.0]], ["(image + 1) / 2", "from -1 to 1"]),
        ([[-0.01, 1.02]], ["np.clip(image, 0, 1)", "from -0.01 to 1.02"]),
        ([[0.0, 16.0]], ["image / image.max()", "from 0 to 16"]),
        ([[-3.0, 9.0]], ["(image - image.min()) / (image.max() - image.min())"]),
        ([[0.0, np.nan]], ["finite", "NaN"]),
        ([[0.0, np.inf]], ["finite", "infinity"]),
        (np.array([[3, 200]]), ["image.astype(np.uint8)", "int64", "from 3 to 200"]),
        (np.array([[-3, 200]]), ["bring the values to 0 to 255", "from -3 to 200"]),
        (np.array([[1j]]), ["complex128"]),
        (np.zeros(4), ["(H, W, 3)", "(4,)"]),
        (np.zeros((2, 3, 4, 5)), ["(2, 3, 4, 5)"]),
        (np.zeros((0, 4)), ["no pixels", "(0, 4)"]),
        (np.zeros((3, 8, 9)), ["image.transpose(1, 2, 0)", "(3, 8, 9)"]),
        (np.zeros((7, 8, 9)), ["1, 3 or 4 channels", "(7, 8, 9)"]),
    ],
)
def test_errors_name_the_way_out(values, words):
    with pytest.raises(BadImageError) as caught:
        canonical_image(np.asarray(values))
    for word in words:
        assert word in caught.value.cause


def test_rounding_of_float32_is_tolerated():
    image = np.array([[-1e-7, np.nextafter(np.float32(1), np.float32(2))]], np.float32)
    assert canonical_image(image).tolist() == [[0, 255]]


@st.composite
def small_images(draw):
    height, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shape = draw(st.sampled_from([(height, width), (height, width, 3)]))
    values = draw(
        st.lists(
            st.sampled_from([0, 1, 254, 255]),
            min_size=int(np.prod(shape)),
            max_size=int(np.prod(shape)),
        )
    )
    return np.array(values, dtype=np.uint8).reshape(shape)


AS_DTYPE = {
    "uint8": lambda a: a,
    "float32": lambda a: (a / 255).astype(np.float32),
    "float64": lambda a: a / 255,
    "uint16": lambda a: a.astype(np.uint16) * 257,
}


@settings(max_examples=100)
@given(
    small_images(),
    small_images(),
    st.sampled_from(sorted(AS_DTYPE)),
    st.sampled_from(sorted(AS_DTYPE)),
)
def test_equal_content_if_and_only_if_equal_digest(a, b, dtype_a, dtype_b):
    digests = [
        digest_pixels(canonical_image(AS_DTYPE[dtype](image)))
        for image, dtype in ((a, dtype_a), (b, dtype_b))
    ]
    same = a.shape == b.shape and bool((a == b).all())
    assert (digests[0] == digests[1]) == same
