"""Images that are stored larger than the input of the network, and views of them."""

import dataclasses


def with_margin(preprocessing):
    """Return preprocessing that does not crop, so that crops can be random."""
    resize, (height, width) = preprocessing.resize, preprocessing.crop
    if isinstance(resize, int):
        ratio = max(1.0, resize / min(height, width))
        whole = (round(height * ratio), round(width * ratio))
    else:
        whole = (max(resize[0], height), max(resize[1], width))
    return dataclasses.replace(preprocessing, crop=whole)


# Where a view is cropped, as fractions of the margin down and right, and whether it is
# mirrored.
_CENTER = (0.5, 0.5)
_PLACES = [_CENTER, (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)]
VIEWS = {
    "flip": [(_CENTER, False), (_CENTER, True)],
    # The ten views of Krizhevsky, Sutskever and Hinton 2012.
    "flip_crop": [(place, mirrored) for place in _PLACES for mirrored in (False, True)],
}


def cut_view(pixels, size, place):
    """Return the part of each stored image that belongs to a view.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n_images, stored_height, stored_width, 3)
    size : tuple of (int, int)
        Height and width of the input of the network, in pixels.
    place : tuple of (float, float)
        Position, as fractions of the margin down and right.

    Returns
    -------
    ndarray of uint8, shape (n_images, height, width, 3)
        Not a copy.
    """
    tops, lefts = (
        round(fraction * (whole - side))
        for fraction, whole, side in zip(place, pixels.shape[1:3], size, strict=True)
    )
    return pixels[:, tops : tops + size[0], lefts : lefts + size[1]]
