"""Every image of X decoded and resized once, for training."""

import math
import tempfile
from contextlib import closing

import numpy as np
from tqdm.auto import tqdm

from ..images import make_image_source
from ._decode_ahead import decode_ahead, decoding_threads

__all__ = ["load_pixels"]

# Images that are decoded before they are written where they belong.
_DECODED_AT_ONCE = 64


def load_pixels(X, preprocessing, settings, max_bytes, digests=None):
    """Decode and resize every image of X once, for training.

    Parameters
    ----------
    X : images in any of the forms that `images.make_image_source` takes
    preprocessing : Preprocessing
        Its geometry is applied.
    settings : ExtractionSettings
    max_bytes : int
        Larger results are memory-mapped: they live in a temporary file, which is gone
        when the last reference to the array is.
    digests : list of bytes or None, default=None
        Those that the images of X had before. An image that has another one now is one
        that cannot be read.

    Returns
    -------
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
    failures : list of BadImageError
        With ``on_error="nan"``, one for each image that cannot be read; its pixels are
        zero.

    Raises
    ------
    BadImageError
        With ``on_error="raise"``, at the first image that cannot be read.
    """
    source = make_image_source(
        X,
        flat_image_shape=settings.flat_image_shape,
        max_pixels=settings.max_pixels,
        storage_options=settings.storage_options,
    )
    if digests is not None:
        source.expect(digests)
    shape = (len(source), *preprocessing.crop, 3)
    pixels = _room_for(shape, max_bytes)
    failures = {}
    rows = np.arange(len(source))
    with (
        tqdm(
            total=len(source),
            desc="decoding",
            unit="image",
            disable=settings.verbose < 1,
        ) as bar,
        decoding_threads() as pool,
        closing(
            decode_ahead(pool, source, rows, preprocessing, _DECODED_AT_ONCE)
        ) as decoded,
    ):
        for good, images, bad in decoded:
            if bad and settings.on_error == "raise":
                raise bad[min(bad)]
            failures.update(bad)
            if good:
                pixels[np.array(good)] = np.stack(images)
            bar.update(len(good) + len(bad))
    return pixels, [failures[row] for row in sorted(failures)]


def _room_for(shape, max_bytes):
    """Return an array of zeros, in memory or, if it is large, in a temporary file."""
    if math.prod(shape) <= max_bytes:
        return np.zeros(shape, np.uint8)
    # The file has no name, or loses it when it is closed, so that nothing stays
    # behind however the process ends; the mapping keeps it alive.
    file = tempfile.TemporaryFile(prefix="skdeepfeat-pixels-")
    file.truncate(math.prod(shape))
    return np.memmap(file, np.uint8, "r+", shape=shape)
