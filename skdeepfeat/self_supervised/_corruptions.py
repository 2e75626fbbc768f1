"""What a denoising autoencoder does to its inputs."""

from dataclasses import dataclass

import numpy as np

from .._utils._parameter_errors import choice_error


@dataclass(frozen=True)
class FeatureRanges:
    """What corruptions know of the training data, in the units of the network.

    Attributes
    ----------
    zero, low, high, scale : ndarray of float32, shape (n_features,)
        Where the value 0 of X is, and the minimum, maximum and standard deviation.
    """

    zero: np.ndarray
    low: np.ndarray
    high: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, rows, zero):
        """Return the ranges of the training rows, shape (n_samples, n_features)."""
        return cls(zero, rows.min(axis=0), rows.max(axis=0), rows.std(axis=0))


def _mask(rows, level, rng, ranges):
    return np.where(rng.random(rows.shape) < level, ranges.zero, rows)


def _gaussian(rows, level, rng, ranges):
    noise = rng.standard_normal(rows.shape, dtype=np.float32)
    return rows + np.float32(level) * ranges.scale * noise


def _salt_pepper(rows, level, rng, ranges):
    extremes = np.where(rng.random(rows.shape) < 0.5, ranges.low, ranges.high)
    return np.where(rng.random(rows.shape) < level, extremes, rows)


# Each is called as function(rows, level, rng, ranges) with rows of float32, and returns
# rows of the same shape and type.
CORRUPTIONS = {"mask": _mask, "gaussian": _gaussian, "salt_pepper": _salt_pepper}


def check_level(corruption, level):
    """Raise if a level that is a fraction is more than 1."""
    if corruption not in (None, "gaussian") and level > 1:
        wanted = f"in [0, 1] for corruption={corruption!r}"
        raise choice_error("corruption_level", wanted, level)
