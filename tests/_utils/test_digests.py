"""Digests: equal exactly where the content is equal, in every process."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skdeepfeat._utils._digests import (
    digest_bytes,
    digest_description,
    digest_file,
    digest_pixels,
)

PIXELS = st.integers(0, 2**32).map(
    lambda seed: np.random.default_rng(seed).integers(
        0, 3, (seed % 3 + 1, seed % 2 + 1), dtype=np.uint8
    )
)


@given(st.binary(max_size=100))
def test_file_and_bytes_agree(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("f") / "x"
    path.write_bytes(data)
    assert digest_file(path) == digest_bytes(data)
    assert len(digest_bytes(data)) == 32


@given(PIXELS, PIXELS)
def test_pixels_digest_is_that_of_shape_and_values(a, b):
    same = a.shape == b.shape and (a == b).all()
    assert (digest_pixels(a) == digest_pixels(b)) == same


def test_layout_in_memory_does_not_count():
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert digest_pixels(pixels) == digest_pixels(np.asfortranarray(pixels))
    assert digest_pixels(pixels[::2]) == digest_pixels(pixels[::2].copy())


def test_an_array_cannot_pose_as_a_file():
    pixels = np.zeros((2, 2), np.uint8)
    header = f"{pixels.dtype.str}{pixels.shape}".encode()
    assert digest_pixels(pixels) != digest_bytes(header + pixels.tobytes())


def test_description_ignores_the_order_of_keys():
    assert digest_description({"a": 1, "b": [2]}) == digest_description(
        {"b": [2], "a": 1}
    )
    assert digest_description({"a": 1}) != digest_description({"a": 2})
