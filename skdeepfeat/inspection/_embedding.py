"""embedding: features as points in the plane."""

import numpy as np
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.utils._param_validation import HasMethods, StrOptions

from .._utils._columns import check_table
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from .._utils._shown import shown

# t-SNE of these components is that of the features with less noise, and faster.
_N_COMPONENTS = 50
_PERPLEXITY = 30
_MIN_IMAGES = 3


@public_function
@validate_params(
    method=[StrOptions({"pca", "tsne"}), HasMethods(["fit_transform"])],
    random_state=["random_state"],
)
def embedding(features, method="tsne", *, random_state=None):
    """Map features to the plane, so that similar images are near each other.

    Parameters
    ----------
    features : array-like, shape (n_samples, n_features)
        At least 3 samples.
    method : {"tsne", "pca"} or transformer, default="tsne"
        ``"tsne"`` shows which images are neighbors [1]_, but the sizes of groups and
        the distances between them mean nothing. It uses the first 50 principal
        components, and a perplexity of 30, or less for few images. ``"pca"`` shows the
        two directions of most variance. A transformer with a `fit_transform` that
        returns two columns is cloned and used.
    random_state : int, RandomState instance or None, default=None
        For ``"tsne"`` and ``"pca"``.

    Returns
    -------
    ndarray of float, shape (n_samples, 2)
        Positions in the plane.

    Raises
    ------
    ValueError
        If there are too few samples, if features are not finite or all rows are equal,
        or if the transformer does not return two columns.

    References
    ----------
    .. [1] Van der Maaten and Hinton, "Visualizing data using t-SNE", JMLR 2008.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat.inspection import embedding
    >>> X, y = load_digits(return_X_y=True)
    >>> embedding(X, "pca", random_state=0).shape
    (1797, 2)
    """
    features = check_table(features, "features", ensure_min_samples=_MIN_IMAGES)
    n_samples, n_features = features.shape
    if (features == features[0]).all():
        raise ValueError(
            "The 'features' parameter of embedding must have rows that differ. Got "
            f"{n_samples} equal ones."
        )
    if not isinstance(method, str):
        points = np.asarray(clone(method).fit_transform(features))
        if points.shape != (n_samples, 2):
            raise ValueError(
                "The 'method' parameter must be 'tsne', 'pca' or a transformer that "
                f"returns two columns. Got {shown(method)}, which returns an array of "
                f"shape {points.shape}."
            )
        return points
    n_components = 2 if method == "pca" else _N_COMPONENTS
    n_components = min(n_components, n_samples, n_features)
    pca = PCA(n_components, random_state=random_state)
    points = np.asarray(pca.fit_transform(features))
    if method == "tsne" and points.shape[1] > 1:
        perplexity = min(_PERPLEXITY, (n_samples - 1) / 3)
        tsne = TSNE(perplexity=perplexity, init="pca", random_state=random_state)
        points = np.asarray(tsne.fit_transform(points))
    if points.shape[1] == 1:  # of a single feature
        points = np.hstack([points, np.zeros_like(points)])
    return points
