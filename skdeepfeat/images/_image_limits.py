"""Limits on the size of an image: pixels, bytes, scans."""

import os

from PIL import Image

from skdeepfeat.exceptions import BadImageError

SCANS_VARIABLE = "SKDEEPFEAT_MAX_JPEG_SCANS"
_DEFAULT_SCANS = 100

# Bytes. Four channels of 16 bits per pixel, and the metadata of the largest files.
_BYTES_PER_PIXEL = 8
_METADATA = 2**26


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
    """Raise BadImageError if an image may not have this (width, height)."""
    width, height = size
    if width <= 0 or height <= 0:
        raise BadImageError("it has no pixels")
    if max_pixels is not None and width * height > max_pixels:
        raise BadImageError(too_large(f"{width} x {height} pixels", max_pixels, what))


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
