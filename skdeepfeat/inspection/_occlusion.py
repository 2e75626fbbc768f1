"""Occlusion: how much the result changes if a part of the image is covered."""

import functools

import numpy as np

from .._utils._device import resolve_devices
from .._utils._threads import all_cores
from ..feature_extraction import non_finite_error


def occlusion(parts, pixels, indices, targets, *, grid, **options):
    """Return maps of how much the result falls if a square there is covered.

    Parameters and return value are those of `activation_maps.METHODS`.
    """
    device = resolve_devices(parts.settings.device)[0]
    maps = np.empty((len(indices), grid, grid), np.float32)
    loaded = parts.neck.loaded(device, parts.settings.precision)
    with all_cores(device), loaded as run:

        def results(images, index):
            rows = np.hstack(run(np.stack(images)))
            if not np.isfinite(rows).all():
                precision = parts.settings.precision
                raise non_finite_error(parts.neck, precision, [index])
            return parts.end.results(rows)

        for i, index in enumerate(indices.tolist()):
            of_image = functools.partial(results, index=index)
            maps[i] = occlusion_map(pixels[index], of_image, targets, index, grid)
    return maps


def occlusion_map(image, results, targets, index, grid):
    """Return the map of one image.

    Parameters
    ----------
    image : ndarray, shape (height, width) or (height, width, n_channels)
    results : callable
        From a list of such images to an ndarray (n_images, n_columns).
    targets : Targets
    index : int
        Which image it is.
    grid : int
        Number of rows and of columns of the map.

    Returns
    -------
    ndarray of float, shape (grid, grid)
    """
    # The mean color, because a black square would itself be a visible feature.
    color = image.mean(axis=(0, 1)).astype(image.dtype)
    covered = []
    for top, bottom in _sides(image.shape[0], grid):
        for left, right in _sides(image.shape[1], grid):
            changed = image.copy()
            changed[top:bottom, left:right] = color
            covered.append(changed)
    found = results([image, *covered])
    [column] = targets.choose(found[:1], np.array([index]))
    return (found[0, column] - found[1:, column]).reshape(grid, grid)


def _sides(length, grid):
    """Yield (start, stop) of squares around the cells of a grid, twice as large."""
    cell = length / grid
    for i in range(grid):
        start = max(0, round((i - 0.5) * cell))
        yield start, max(start + 1, min(length, round((i + 1.5) * cell)))
