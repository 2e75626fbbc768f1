"""Whether a network in another form computes the same, compared on random images."""

import numpy as np
import torch

# In float32, relative to the largest value of a layer's rows.
TOLERANCE = 1e-4


def random_pixels(n_images, crop):
    """Return images of noise, the same ones each time.

    Parameters
    ----------
    n_images : int
    crop : tuple of (int, int)
        Height and width, pixels.

    Returns
    -------
    Tensor of uint8, shape (n_images, height, width, 3)
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n_images, *crop, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


def largest_difference(found, wanted):
    """Return the largest difference between rows, over all outputs.

    Parameters
    ----------
    found, wanted : sequence of ndarray, shape (n_images, n_features)
        One for each output, of equal shapes.

    Returns
    -------
    float
        The difference relative to the largest value of the output. NaN where `found`
        has NaN.
    """
    differences = []
    for rows, expected in zip(found, wanted, strict=True):
        scale = max(np.abs(expected).max(), np.finfo(np.float32).tiny)
        differences.append(np.abs(rows - expected).max() / scale)
    return float(np.max(differences))  # unlike max(), it returns NaN if there is one
