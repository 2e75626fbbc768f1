"""Extractors with another network of the same kind, for `compression`."""

import numpy as np

from ._pixels import load_pixels

_MAX_BYTES = 4 * 2**30


def neck_of(extractor):
    """Return the `Neck` of an extractor."""
    _, neck, _ = extractor._inspected(None)
    return neck


def decode_for(extractor, X):
    """Return the images of X as the network of an extractor takes them.

    Returns
    -------
    ndarray of uint8, shape (n_images, height, width, 3)
        Without the images that cannot be read.
    """
    X, neck, settings = extractor._inspected(X)
    pixels, failures = load_pixels(X, neck.preprocessing, settings, _MAX_BYTES)
    if not failures:
        return pixels
    return np.delete(pixels, [failure.index for failure in failures], axis=0)


def with_network(extractor, network):
    """Return an extractor like another one, with a network of the user's own.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor
        It is not changed.
    network : Module
        With the same layers.

    Returns
    -------
    PretrainedFeatureExtractor
        Fitted if `extractor` is.
    """
    new = object.__new__(type(extractor))
    vars(new).update(
        vars(extractor),
        model=network,
        weights="default",
        image_size=None,
        preprocessing=neck_of(extractor).preprocessing,
    )
    return new
