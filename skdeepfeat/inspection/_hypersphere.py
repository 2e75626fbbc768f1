"""Alignment and uniformity of embeddings on the unit sphere."""

import numpy as np
import torch

from .. import training
from .._utils._columns import check_table
from .._utils._public_function import public_function


@public_function
def alignment(Z, pairs):
    """Return how far apart the embeddings of pairs are on the unit sphere.

    Parameters
    ----------
    Z : array-like of shape (n_samples, n_features)
        Embeddings. Each is divided by its norm.
    pairs : array-like of int, shape (n_pairs, 2)
        Indices of embeddings that belong together, such as two views of one image.

    Returns
    -------
    float
        Mean squared distance of the pairs, in [0, 4]. Smaller is better [1]_.

    Raises
    ------
    ValueError
        If an embedding is zero, or an index is out of bounds.

    References
    ----------
    .. [1] T. Wang and P. Isola, "Understanding contrastive representation learning
       through alignment and uniformity on the hypersphere", ICML 2020, with alpha = 2.

    Examples
    --------
    >>> from skdeepfeat.inspection import alignment
    >>> round(alignment([[1, 0], [2, 0], [0, 1]], [[0, 1], [1, 2]]), 6)
    1.0
    """
    Z = _checked(Z)
    pairs = check_table(pairs, "pairs", dtype=None)
    if pairs.shape[1] != 2 or not np.issubdtype(pairs.dtype, np.integer):
        raise ValueError(
            "pairs must be an array of int of shape (n_pairs, 2), indices of Z. Got "
            f"shape {pairs.shape} and type {pairs.dtype}."
        )
    if pairs.min() < 0 or pairs.max() >= len(Z):
        raise ValueError(
            f"pairs must hold indices of Z from 0 to {len(Z) - 1}. Got values from "
            f"{pairs.min()} to {pairs.max()}."
        )
    first, second = (torch.from_numpy(Z[column]) for column in pairs.T)
    return float(training.alignment(first, second))


@public_function
def uniformity(Z):
    """Return how evenly embeddings are spread over the unit sphere.

    Parameters
    ----------
    Z : array-like of shape (n_samples, n_features)
        Embeddings, at least 2. Each is divided by its norm.

    Returns
    -------
    float
        Logarithm of the mean Gaussian potential of all pairs, in [-8, 0]. Smaller is
        more even [1]_; it is 0 if all are equal, and about -4 for random directions of
        many dimensions.

    Raises
    ------
    ValueError
        If an embedding is zero.

    References
    ----------
    .. [1] As for `alignment`, with t = 2.

    Examples
    --------
    >>> from skdeepfeat.inspection import uniformity
    >>> round(uniformity([[1, 0], [-1, 0]]), 6)
    -8.0
    """
    return float(training.uniformity(torch.from_numpy(_checked(Z))))


def refuse_zero_rows(Z):
    """Raise ValueError if a row has no direction."""
    is_zero = ~Z.any(axis=1)
    if is_zero.any():
        raise ValueError(
            "Z must not hold zero embeddings, which have no direction. Row "
            f"{is_zero.argmax()} of Z is zero."
        )


def _checked(Z):
    Z = check_table(Z, "Z", dtype=np.float64, ensure_min_samples=2)
    refuse_zero_rows(Z)
    # The norms of huge or tiny numbers would be infinite or zero.
    return Z / np.abs(Z).max(axis=1, keepdims=True)
