"""Views of the photographs that scikit-image brings: a task that needs no data."""

import io

import numpy as np
from PIL import Image
from skimage import data

NAMES = ("astronaut", "chelsea", "coffee", "rocket")


def make_views(n_images, seed=0, names=NAMES, sides=(120, 240)):
    """Return random parts of photographs, encoded.

    Parameters
    ----------
    n_images : int
    seed : int, default=0
    names : sequence of str
        Functions of `skimage.data`; the default is four photographs.
    sides : tuple of (int, int), default=(120, 240)
        The least side of a part, and the first that is too large, in pixels.

    Returns
    -------
    images : list of bytes
        JPEG files.
    labels : list of int
    names : list of str
    """
    rng = np.random.default_rng(seed)
    photographs = [getattr(data, name)() for name in names]
    images, labels = [], []
    for i in range(n_images):
        label = i % len(names)
        photograph = photographs[label]
        side = rng.integers(*sides)
        top, left = (rng.integers(0, n - side) for n in photograph.shape[:2])
        part = Image.fromarray(photograph[top : top + side, left : left + side])
        buffer = io.BytesIO()
        part.save(buffer, "JPEG", quality=90)
        images.append(buffer.getvalue())
        labels.append(label)
    return images, labels, list(names)
