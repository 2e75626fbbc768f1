"""cka and similarity: how alike two sets of features of the same images are."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.utils import check_consistent_length
from sklearn.utils._param_validation import StrOptions

from .._utils._columns import check_table
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from .._utils._shown import shown
from ..feature_extraction import extract_layers
from ._extractor_parameter import split_extractor

_MIN_IMAGES = 4  # the unbiased estimator divides by n - 3


@public_function
def cka(A, B):
    """Return how similar two sets of features are: linear CKA, unbiased.

    Centered kernel alignment is 1 for features that differ by a rotation, a shift and a
    scale only, and 0 on average for independent ones [1]_. The usual, biased estimator
    is near 1 for independent features if there are more features than images. This is
    the ratio of unbiased estimators of HSIC [2]_, which may be slightly negative.

    Parameters
    ----------
    A : array-like, shape (n_samples, n_features_a)
        At least 4 samples.
    B : array-like, shape (n_samples, n_features_b)
        Row i belongs to the same image as row i of A.

    Returns
    -------
    float
        At most 1. NaN if A or B is constant.

    Raises
    ------
    ValueError
        If A and B differ in length, have fewer than 4 rows, or are not finite.

    References
    ----------
    .. [1] Kornblith et al., "Similarity of neural network representations revisited",
       ICML 2019.
    .. [2] Song et al., "Feature selection via dependence maximization", JMLR 2012,
       equation 5.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat.inspection import cka
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.normal(size=(2, 200, 50))
    >>> rotation, _ = np.linalg.qr(rng.normal(size=(50, 50)))
    >>> float(round(cka(A, 3 * A @ rotation), 6))
    1.0
    >>> bool(abs(cka(A, B)) < 0.05)
    True
    """
    options = {"ensure_min_samples": _MIN_IMAGES, "estimator": "cka"}
    A = check_table(A, "A", dtype=np.float64, **options)
    B = check_table(B, "B", dtype=np.float64, **options)
    check_consistent_length(A, B)
    A, B = _centered(A), _centered(B)
    return _cka(A, B, _hsic(A, A), _hsic(B, B))


@public_function
@validate_params(layers=[StrOptions({"stages"}), list, tuple, None])
def similarity(extractors, X, layers=None):
    """Compare layers or networks: the CKA of their features for the same images.

    Parameters
    ----------
    extractors : PretrainedFeatureExtractor, list of these, or dict of str to these
        With one extractor, its layers are compared with each other. With several, all
        of their layers are compared. The keys of a dict are the names in the result. A
        Pipeline that begins with an extractor counts as that extractor.
    X : array-like of images, shape (n_samples,)
        At least 4 images.
    layers : "stages", list of str and int, or None, default=None
        The layers of each extractor, computed in one pass for each. ``"stages"`` means
        all stages and the neck. None means ``"stages"`` for one extractor, and the
        `layer` of each for several.

    Returns
    -------
    pandas.DataFrame, shape (n_layers, n_layers)
        `cka` of each pair of layers, with their names as index and columns.

    Raises
    ------
    TypeError, ValueError
        If a parameter is wrong, or if fewer than 4 images can be read.
    BadImageError
        If an image cannot be read and the extractor has ``on_error="raise"``. With
        ``"nan"``, such images are left out.

    See Also
    --------
    skdeepfeat.plotting.SimilarityDisplay : Plot it as a heat map.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.inspection import similarity
    >>> extractor = PretrainedFeatureExtractor(image_size=64)
    >>> similarity(extractor, load_digits().images[:50] / 16, ["blocks.4", "neck"])
    ...     # doctest: +SKIP
              blocks.4      neck
    blocks.4  1.000000  0.633417
    neck      0.633417  1.000000
    """
    if isinstance(extractors, Mapping):
        named = list(extractors.items())
    elif isinstance(extractors, (list, tuple)):
        named = [(None, one) for one in extractors]
    else:
        named = [("", extractors)]
        layers = "stages" if layers is None else layers
    if not named:
        raise ValueError(
            "The 'extractors' parameter of similarity must be at least one extractor. "
            f"Got {shown(extractors)} instead."
        )
    named = [
        (name, split_extractor(one, "similarity", "extractors")[0])
        for name, one in named
    ]
    names, blocks, failed = [], [], False
    for name, extractor in named:
        found = extract_layers(extractor, X, layers)
        failed = failed | found.failed
        blocks += found.features
        names += _names_of(name, found)
    if len(set(names)) < len(names):
        raise ValueError(
            "The 'extractors' parameter of similarity must have a name for each "
            "network if some are of the same model. Pass a dict of names to "
            f"extractors. Got the layers {names}."
        )
    if np.sum(~failed) < _MIN_IMAGES:
        raise ValueError(
            f"The 'X' parameter of similarity must have at least {_MIN_IMAGES} images "
            f"that can be read. Got {np.sum(~failed)}."
        )
    blocks = [_centered(block[~failed].astype(np.float64)) for block in blocks]
    own = [_hsic(block, block) for block in blocks]
    values = np.empty((len(blocks), len(blocks)))
    for i, A in enumerate(blocks):
        for j, B in enumerate(blocks[: i + 1]):
            values[i, j] = values[j, i] = _cka(A, B, own[i], own[j])
    return pd.DataFrame(values, index=names, columns=names)


def _names_of(name, found):
    """Return a name for each layer of one extractor.

    Parameters
    ----------
    name : str or None
        That of the extractor, ``""`` if it is the only one, None if it has no name.
    found : LayerFeatures
    """
    if name and len(found.names) == 1:
        return [str(name)]
    name = found.network if name is None else name
    return [f"{name} {layer}".strip() for layer in found.names]


def _centered(features):
    # The estimator does not depend on shifts, but its rounding errors do.
    centered = features - features.mean(axis=0)
    scale = np.abs(features).max(initial=0.0)
    # The rest of a constant is rounding error, also in float32.
    centered[:, np.ptp(features, axis=0) <= 1e-7 * scale] = 0.0
    return centered


def _cka(A, B, hsic_a, hsic_b):
    """Return the CKA of centered features, of which HSIC with themselves is known."""
    if hsic_a <= 0 or hsic_b <= 0:
        return np.nan
    return float(_hsic(A, B) / np.sqrt(hsic_a * hsic_b))


def _hsic(A, B):
    """Return the unbiased estimate of HSIC for linear kernels K = AA' and L = BB'.

    With the diagonals of K and L set to 0, it is [tr(KL) + 1'K1 1'L1 / ((n-1)(n-2)) -
    2 1'KL1 / (n-2)] / (n(n-3)). K and L are not built if n is larger than the numbers
    of features.
    """
    n = len(A)
    diagonal_a, diagonal_b = (A**2).sum(axis=1), (B**2).sum(axis=1)
    if n < max(A.shape[1], B.shape[1]):
        trace = np.vdot(A @ A.T, B @ B.T)
    else:
        product = A.T @ B
        trace = np.vdot(product, product)
    trace -= diagonal_a @ diagonal_b
    sums_a = A @ A.sum(axis=0) - diagonal_a
    sums_b = B @ B.sum(axis=0) - diagonal_b
    both = sums_a.sum() * sums_b.sum() / ((n - 1) * (n - 2))
    return (trace + both - 2 * (sums_a @ sums_b) / (n - 2)) / (n * (n - 3))
