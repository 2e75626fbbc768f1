"""The fixed images that identify a user's own network."""

import functools

import numpy as np
from blake3 import blake3

# Increase this when the images change, because caches hold rows of the older images.
VERSION = 1

_CORNERS = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]


@functools.lru_cache(maxsize=4)
def probe_images(crop):
    """Return a few images that are as different from each other as possible.

    They are made with integer arithmetic, so they are the same on every machine.

    Parameters
    ----------
    crop : tuple of (int, int)
        Height and width, pixels.

    Returns
    -------
    ndarray of uint8, shape (n_images, height, width, 3), read-only
    """
    height, width = crop
    y, x = np.mgrid[:height, :width]
    texture = _texture(height, width)
    images = np.stack(
        [
            texture,
            _noise("noise", (height, width, 3)),
            np.zeros((height, width, 3), np.uint8),
            np.full((height, width, 3), 255, np.uint8),
            _gradients(y, x, height, width),
            np.array(_CORNERS, np.uint8)[(8 * x // width + 3 * (4 * y // height)) % 8],
            _squares(y, x, height, width),
            96 + texture // 8,  # low contrast
        ]
    ).astype(np.uint8)
    images.flags.writeable = False
    return images


def _noise(name, shape):
    # The output of a hash, because NumPy's generators may change their numbers.
    stream = blake3(f"skdeepfeat probe {VERSION} {name}".encode())
    n_bytes = int(np.prod(shape))
    return np.frombuffer(stream.digest(length=n_bytes), np.uint8).reshape(shape)


def _gradients(y, x, height, width):
    down, right = 255 * y // max(height - 1, 1), 255 * x // max(width - 1, 1)
    return np.stack([right, down, (510 - down - right) // 2], axis=-1)


def _squares(y, x, height, width):
    """Return black and white squares, smaller towards the right."""
    sizes = np.array([16, 8, 5, 3, 2, 1])[6 * x // width]
    black = (y // sizes + x // sizes) % 2
    return np.repeat(255 * black[..., None], 3, axis=-1)


def _texture(height, width):
    """Return an image with the statistics of a photograph: 1/f noise, with edges."""
    total = np.zeros((height, width, 3), np.int64)
    weight, n = 128, 2
    while weight >= 4:
        total += weight * _smooth(
            _noise(f"octave {n}", (n + 1, n + 1, 3)), height, width
        )
        weight, n = weight // 2, 2 * n
    total //= 256
    y, x = np.mgrid[:height, :width]
    radius = min(height, width) // 4
    disc = (y - height // 3) ** 2 + (x - width // 3) ** 2 < radius**2
    bar = (x + y // 2) % max(width // 2, 2) < max(width // 16, 1)
    total[disc] = 255 - total[disc]
    total[bar & ~disc] //= 3
    return total


def _smooth(grid, height, width):
    """Return a small grid of values, linearly interpolated to the full size."""
    n = len(grid) - 1
    grid = grid.astype(np.int64)
    y, fy = np.divmod(np.arange(height) * n * 256 // max(height, 1), 256)
    x, fx = np.divmod(np.arange(width) * n * 256 // max(width, 1), 256)
    fy, fx = fy[:, None, None], fx[None, :, None]
    rows = grid[y] * (256 - fy) + grid[y + 1] * fy
    return (rows[:, x] * (256 - fx) + rows[:, x + 1] * fx) >> 16
