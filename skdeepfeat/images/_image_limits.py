"""Limits on an image: its pixels, bytes and scans, and how often it is read.

Pillow's plugins read headers in Python, some of them byte by byte, and keep what they
find. In a small file of nothing but comments or empty chunks this takes minutes and
gigabytes, whatever the format. Each step of such a loop reads from the file.
"""

import io
import os

from PIL import Image

from skdeepfeat.exceptions import BadImageError

SCANS_VARIABLE = "SKDEEPFEAT_MAX_JPEG_SCANS"
_DEFAULT_SCANS = 100

# Bytes. Four channels of 16 bits per pixel, and the metadata of the largest files.
_BYTES_PER_PIXEL = 8
_METADATA = 2**26

# Bytes of a line in a header. Pillow's plugins for texts read a line of any file.
_MAX_LINE = 2**20

# Calls of `read`. The color table of the largest XPM has a line for each color.
_BEFORE_SIZE = 2**18
# Python's decoders read up to four times for a pixel.
_AFTER_SIZE = 2**16
_PER_PIXEL = 4


def max_bytes(max_pixels):
    """Return how many bytes a file may have, None for any number.

    Parameters
    ----------
    max_pixels : int or None

    Returns
    -------
    int or None
    """
    if max_pixels is None:
        if Image.MAX_IMAGE_PIXELS is None:
            return None
        max_pixels = 2 * Image.MAX_IMAGE_PIXELS  # Pillow's own limit
    return _BYTES_PER_PIXEL * max_pixels + _METADATA


def max_jpeg_scans():
    """Return how many scans a JPEG may have.

    Raises
    ------
    ValueError
        If the environment variable is not a number of scans.
    """
    text = os.environ.get(SCANS_VARIABLE)
    if text is None:
        return _DEFAULT_SCANS
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(
            f"The environment variable {SCANS_VARIABLE} must be an int of at least 1. "
            f"Got {text[:80]!r} instead."
        )
    return int(text)


def check_size(size, max_pixels, what="it claims"):
    """Return the pixels of (width, height), or raise if an image may not have them.

    Raises
    ------
    BadImageError
    """
    width, height = size
    if not (width >= 1 and height >= 1):  # Pillow reads NaN in one format
        raise BadImageError("it has no pixels")
    if max_pixels is not None and width * height > max_pixels:
        raise BadImageError(too_large(f"{width} x {height} pixels", max_pixels, what))
    return width * height


def too_large(claim, max_pixels, what="it claims"):
    """Return the error message for an image of too many pixels."""
    return (
        f"{what} {claim}, more than max_pixels={max_pixels} allows: it is damaged or a "
        "decompression bomb, or max_pixels must be raised"
    )


def check_length(n_bytes, limit):
    """Raise BadImageError if a file has more bytes than a limit that is not None."""
    if limit is not None and n_bytes > limit:
        raise BadImageError(
            f"it has more than {limit} bytes, 8 for each of max_pixels and 64 MiB: if "
            "it is a single image, max_pixels must be raised"
        )


class _CountedReads:
    """A binary file that raises BadImageError after too many calls of `read`."""

    _n_left = _BEFORE_SIZE
    _max_line = _MAX_LINE

    def allow_pixels(self, n_pixels: int) -> None:
        """Allow what a decoder needs for this number of pixels."""
        self._n_left = _AFTER_SIZE + _PER_PIXEL * n_pixels
        self._max_line = -1

    def read(self, *size):
        self._count()
        return super().read(*size)

    def readline(self, size=-1):
        self._count()
        return super().readline(self._max_line if size is None or size < 0 else size)

    def _count(self):
        self._n_left -= 1
        if self._n_left < 0:
            raise BadImageError(
                "it consists of too many tiny parts, as files that are made to decode "
                "slowly"
            )


class CountedBytes(_CountedReads, io.BytesIO):
    """Encoded bytes as such a file."""


class CountedFile(_CountedReads, io.BufferedReader):
    """An open file as such a file, of which only the header is read."""

    _n_bytes_left = _METADATA

    def read(self, size=-1):
        is_too_much = size is None or not 0 <= size <= self._n_bytes_left
        data = super().read(self._n_bytes_left + 1 if is_too_much else size)
        self._n_bytes_left -= len(data)
        if self._n_bytes_left < 0:
            raise BadImageError(f"its header has more than {_METADATA} bytes")
        return data
