"""trajectories: how the function that a network computes moves during training."""

import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.manifold import Isomap
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from sklearn.utils._param_validation import HasMethods, StrOptions

from .._utils._parameter_errors import choice_error
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from ._embedding import embedding

# The default of scikit-learn, if there are enough epochs.
_N_NEIGHBORS = 5


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Result of `trajectories`.

    Attributes
    ----------
    points : DataFrame
        One row per epoch of each fit: `group`, `fit` (counted from 0 in each group),
        `epoch` (counted from 1 over both phases), and the coordinates `x` and `y`.
    separation : float
        Mean silhouette of the epochs, with the groups as clusters, in [-1, 1]. Above 0,
        epochs are on average closer to those of their own group. It is computed from
        the predictions and not from the map, which distorts distances. NaN with one
        group.
    mixing : float
        Fraction of the epochs whose nearest epoch of another fit belongs to another
        group. 0 means that the groups do not overlap. NaN unless there are several
        groups of at least two fits.
    """

    points: pd.DataFrame
    separation: float
    mixing: float


@public_function
@validate_params(
    fits=[HasMethods("items")],
    method=[StrOptions({"tsne", "isomap", "pca"}), HasMethods("fit_transform")],
    random_state=["random_state"],
)
def trajectories(fits, *, method="tsne", random_state=None):
    """Map the functions that networks compute after each epoch of their training.

    An epoch is described by the predictions for all probe images, so two epochs are
    close to each other if their predictions are similar [1]_. Weights cannot be
    compared in this way: swapping two units of a layer changes the weights but not the
    function, and fits from different seeds end with different orders of the units.

    Parameters
    ----------
    fits : dict of str to list
        Groups of fits by name, such as ``{"pretrained": [...], "random": [...]}``. A
        fit is an estimator that was fitted with `X_probe`, or its `probe_predictions_`,
        an array of shape (n_epochs, n_images, n_outputs). All must have predictions for
        the same images. Images with NaN in any fit are left out.
    method : {"tsne", "isomap", "pca"} or transformer, default="tsne"
        The method that maps the predictions to two coordinates. ``"tsne"`` shows which
        epochs are neighbors, and ``"isomap"`` also preserves distances along the
        trajectories. The others are those of `embedding`.
    random_state : int, RandomState instance or None, default=None
        For ``"tsne"`` and ``"pca"``.

    Returns
    -------
    Trajectories
        The points, and measures of how the groups differ.

    Raises
    ------
    ValueError
        If an estimator has no recorded predictions, the shapes differ, or there are
        fewer than 4 epochs.

    See Also
    --------
    skdeepfeat.plotting.TrajectoryDisplay : Draws the map.

    References
    ----------
    .. [1] Erhan et al., "Why does unsupervised pre-training help deep learning?",
       JMLR 11, 2010, section 6.3.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat.inspection import trajectories
    >>> rng = np.random.default_rng(0)
    >>> low, high = rng.uniform(0, 0.2, (3, 5, 6, 2)), rng.uniform(0.8, 1, (3, 5, 6, 2))
    >>> found = trajectories({"low": list(low), "high": list(high)}, random_state=0)
    >>> found.mixing
    0.0
    >>> found.points.shape
    (30, 5)
    """
    recorded, tables = [], []
    for name, group in fits.items():
        if not isinstance(group, (list, tuple, np.ndarray)):
            raise choice_error("fits", "a dict of lists of fits", fits, error=TypeError)
        for number, one in enumerate(group):
            predictions = _recorded(name, one)
            epochs = np.arange(1, len(predictions) + 1)
            recorded.append(predictions)
            tables.append(pd.DataFrame({"group": name, "fit": number, "epoch": epochs}))
    _check_shapes(recorded)
    rows = np.concatenate([one.reshape(len(one), -1) for one in recorded])
    rows = rows[:, np.isfinite(rows).all(axis=0)]
    if len(rows) < 4 or rows.shape[1] == 0:
        raise ValueError(
            "The 'fits' parameter must hold at least 4 epochs with predictions that "
            f"are not NaN. Got {len(rows)} epochs with {rows.shape[1]} predictions."
        )
    if (rows == rows[0]).all():
        raise ValueError(
            "The 'fits' parameter must hold predictions that change from epoch to "
            f"epoch. Got the same ones in all {len(rows)} epochs."
        )
    points = pd.concat(tables, ignore_index=True)
    points[["x", "y"]] = _map(rows, method, random_state)
    return Trajectories(points, _separation(rows, points), _mixing(rows, points))


def _recorded(name, fit):
    """Return the recorded predictions of a fit as float64."""
    if isinstance(fit, np.ndarray):
        return fit.astype(np.float64)
    found = getattr(fit, "probe_predictions_", None)
    if found is None:
        raise ValueError(
            f"The 'fits' parameter must hold estimators that were fitted with X_probe. "
            f"Got a {type(fit).__name__} without probe_predictions_ in {name!r}. Fit "
            "it with fit(X, y, X_probe=images)."
        )
    return found.astype(np.float64)


def _check_shapes(recorded):
    shapes = [one.shape for one in recorded]
    if any(len(shape) != 3 for shape in shapes) or len({s[1:] for s in shapes}) != 1:
        raise choice_error(
            "fits",
            "fits with predictions for the same images, arrays of shape (n_epochs, "
            "n_images, n_outputs)",
            sorted(set(shapes)),
        )


def _map(rows, method, random_state):
    if method == "isomap":
        method = Isomap(n_neighbors=min(_N_NEIGHBORS, len(rows) - 1))
    with warnings.catch_warnings():
        # Separate groups have no neighbors in common. Isomap connects them at their
        # closest points, which is what is wanted, and warns.
        warnings.filterwarnings("ignore", "The number of connected components")
        warnings.filterwarnings("ignore", "Changing the sparsity structure")
        return embedding(rows, method, random_state=random_state)


def _separation(rows, points):
    # The names of groups may be of several types.
    groups = points.groupby("group", sort=False).ngroup().to_numpy()
    return float(silhouette_score(rows, groups)) if groups.any() else np.nan


def _mixing(rows, points):
    """Return how often the nearest epoch of another fit is one of another group."""
    n_fits = points.groupby("group", sort=False)["fit"].nunique()
    if len(n_fits) < 2 or n_fits.min() < 2:
        return np.nan
    numbers = points.groupby(["group", "fit"], sort=False).ngroup().to_numpy()
    groups = points["group"].to_numpy()
    mixed = np.zeros(len(rows), bool)
    for number in np.unique(numbers):
        own = numbers == number
        search = NearestNeighbors(n_neighbors=1).fit(rows[~own])
        nearest = search.kneighbors(rows[own], return_distance=False)[:, 0]
        mixed[own] = groups[~own][nearest] != groups[own]
    return float(mixed.mean())
