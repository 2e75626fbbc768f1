"""Every image of X decoded and resized once, for training."""

from contextlib import closing

import numpy as np

from .._utils._device import resolve_devices
from .._utils._large_arrays import allocate
from ._compute import decode_ahead
from ._failures import first_failure, warn_of

# Decoded images beyond this many bytes are memory-mapped. The temporary file is removed
# with the last reference to the array.
_MAX_BYTES = 4 * 2**30

# Images that are decoded before they are copied into the array.
_DECODED_AT_ONCE = 64


def load_pixels(X, preprocessing, settings, digests=None):
    """Decode and resize every image of X once, for training.

    Parameters
    ----------
    X : images in any of the forms that `images.make_image_source` takes
    preprocessing : Preprocessing
        Its geometry is applied.
    settings : ExtractionSettings
    digests : list of bytes or None, default=None
        The earlier digests of the images. An image whose digest has changed counts as
        one that cannot be read.

    Returns
    -------
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
    failures : list of BadImageError
        With ``on_error="nan"``, one for each image that cannot be read; its pixels are
        zero.
    failed : ndarray of bool, shape (n_images,)
        Which images these are.

    Raises
    ------
    BadImageError
        With ``on_error="raise"``, at the first image that cannot be read.
    """
    source = settings.read(X)
    if digests is not None:
        source.expect(digests)
    shape = (len(source), *preprocessing.crop, 3)
    pixels = allocate(shape, np.uint8, _MAX_BYTES)
    failures, failed = {}, np.zeros(len(source), bool)
    devices = resolve_devices(settings.device)
    with (
        settings.progress_bar(len(source), "decoding") as bar,
        closing(
            decode_ahead(source, preprocessing, _DECODED_AT_ONCE, devices)
        ) as decoded,
    ):
        for good, images, bad in decoded:
            if bad and settings.on_error == "raise":
                raise first_failure(bad)
            failures.update(bad)
            if good:
                pixels[np.array(good)] = np.stack(images)
            bar.update(len(good) + len(bad))
    failed[list(failures)] = True
    return pixels, [failures[i] for i in sorted(failures)], failed


def load_readable(X, preprocessing, settings, *, warns=True, in_training=False):
    """Decode and resize images, and say which of them could be read.

    Parameters
    ----------
    X, preprocessing, settings : as for `load_pixels`
    warns : bool, default=True
        Whether to give one warning that lists the others.
    in_training : bool, default=False
        See `warn_of`.

    Returns
    -------
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
        Zero for images that could not be read.
    indices : ndarray of int
        The images that could be read.
    """
    pixels, failures, failed = load_pixels(X, preprocessing, settings)
    if failures and warns:
        warn_of(failures, in_training=in_training)
    return pixels, np.flatnonzero(~failed)
