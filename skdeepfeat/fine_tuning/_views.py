"""Images that are stored larger than the network sees them, and views of these."""

import dataclasses

__all__ = ["MAX_BYTES_IN_MEMORY", "VIEWS", "cut_view", "with_margin"]

# Decoded images beyond this many bytes are memory-mapped.
MAX_BYTES_IN_MEMORY = 4 * 2**30


def with_margin(preprocessing):
    """Return preprocessing that keeps what random crops may choose from."""
    resize, (height, width) = preprocessing.resize, preprocessing.crop
    if isinstance(resize, int):
        share = max(1.0, resize / min(height, width))
        whole = (round(height * share), round(width * share))
    else:
        whole = (max(resize[0], height), max(resize[1], width))
    return dataclasses.replace(preprocessing, crop=whole)


# Where a view is cut out, as shares of the margin down and right, and whether mirrored.
_CENTRE = (0.5, 0.5)
_PLACES = [_CENTRE, (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
VIEWS = {
    "flip": [(_CENTRE, False), (_CENTRE, True)],
    # The ten views of Krizhevsky, Sutskever and Hinton 2012.
    "flip_crop": [(place, mirrored) for place in _PLACES for mirrored in (False, True)],
}


def cut_view(pixels, size, place):
    """Return the part of each stored image that a view shows.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n_images, stored_height, stored_width, 3)
    size : tuple of (int, int)
        Height and width that the network sees, pixels.
    place : tuple of (float, float)
        Where in the margin, as shares of it down and right.

    Returns
    -------
    ndarray of uint8, shape (n_images, height, width, 3)
        Not a copy.
    """
    tops, lefts = (
        round(share * (whole - side))
        for share, whole, side in zip(place, pixels.shape[1:3], size, strict=True)
    )
    return pixels[:, tops : tops + size[0], lefts : lefts + size[1]]
