"""Small images that the tests make themselves."""

import io

import numpy as np
import pytest
from PIL import Image


def encode_image(pixels_or_image, format="PNG", **options):
    image = pixels_or_image
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def encode():
    """Return the function that encodes an array or a PIL image."""
    return encode_image


@pytest.fixture(scope="session")
def rgb():
    """Return an RGB image that no flip or transposition leaves alone."""
    return np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def gray():
    return np.random.default_rng(1).integers(0, 256, (11, 7), dtype=np.uint8)


class DictFileIndex:
    """A FileIndex that counts."""

    def __init__(self):
        self.known = {}
        self.remembered = []

    def lookup(self, stats):
        return [self.known.get(stat) for stat in stats]

    def remember(self, stats, digests):
        self.known.update(zip(stats, digests, strict=True))
        self.remembered += [stat.path for stat in stats]


@pytest.fixture
def file_index():
    return DictFileIndex()
