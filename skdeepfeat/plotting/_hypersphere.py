"""HypersphereDisplay: where embeddings lie on the circle, in all and by class."""

import numpy as np
from scipy.stats import vonmises
from sklearn.decomposition import PCA
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target

from .._utils._columns import check_table
from .._utils._constraints import POSITIVE
from .._utils._parameter_errors import choice_error
from ..inspection import check_targets, refuse_zero_rows
from ._axes import class_colors, import_pyplot, set_axes_grid
from ._pictures import legend_beside

# Of the densities: one degree apart, the ends are the same angle.
_N_ANGLES = 361

# The ring's radii, and the deviation of its brightness across it.
_RADII = np.linspace(0.7, 1.3, 25)
_THICKNESS = 0.1


# Unit vectors that differ less are the same, up to rounding.
_SAME = 1e-12


class HypersphereDisplay:
    """Visualization of embeddings on the circle: a ring, and the angles by class.

    It is recommended to use `from_estimator` or `from_predictions` to create one. All
    parameters are stored as attributes.

    This is the plot of Wang and Isola (2020) [1]_. An even ring means uniform
    embeddings. A narrow peak for each class means that images of one class are near
    each other.

    Parameters
    ----------
    angles : ndarray of float, shape (n_samples,)
        Directions of the embeddings in the plane, radians in [-pi, pi].
    grid : ndarray of float, shape (n_angles,)
        The angles of the densities, radians from -pi to pi.
    density : ndarray of float, shape (n_angles,)
        Density of all embeddings per radian. 1 / (2 pi) everywhere is uniform.
    classes : ndarray or None, shape (n_classes,), default=None
        The labels, sorted.
    class_densities : ndarray of float or None, shape (n_classes, n_angles), \
default=None
        Density of the embeddings of each class per radian.

    Attributes
    ----------
    ring_ : matplotlib QuadMesh
        The density on the circle.
    lines_ : list of matplotlib Line2D
        The density of the angles: one line per class, or one for all.
    axes_ : ndarray of matplotlib Axes, shape (2,)
        Of the ring and of the angles.
    figure_ : matplotlib Figure

    See Also
    --------
    skdeepfeat.inspection.alignment, skdeepfeat.inspection.uniformity : Two numbers
        that measure the same in any dimension.

    References
    ----------
    .. [1] T. Wang and P. Isola, "Understanding contrastive representation learning
       through alignment and uniformity on the hypersphere", ICML 2020, figure 3.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import Autoencoder
    >>> from skdeepfeat.plotting import HypersphereDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> autoencoder = Autoencoder((32, 2), max_epochs=2, random_state=0).fit(X)
    >>> HypersphereDisplay.from_estimator(autoencoder, X, y)
    <...>
    """

    def __init__(self, *, angles, grid, density, classes=None, class_densities=None):
        self.angles = angles
        self.grid = grid
        self.density = density
        self.classes = classes
        self.class_densities = class_densities

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, bandwidth=0.15, ax=None):
        """Plot the features that an estimator returns.

        Parameters
        ----------
        estimator : transformer
            Fitted, such as an `Autoencoder` whose code has two numbers, or any
            extractor.
        X : array-like, shape (n_samples, ...)
            As for the estimator.
        y, bandwidth, ax
            As for `from_predictions`.

        Returns
        -------
        display : HypersphereDisplay
        """
        if not hasattr(estimator, "transform"):
            raise choice_error("estimator", "a fitted transformer", estimator)
        features = estimator.transform(X)
        return cls.from_predictions(features, y, bandwidth=bandwidth, ax=ax)

    @classmethod
    def from_predictions(cls, Z, y=None, *, bandwidth=0.15, ax=None):
        """Plot embeddings.

        Parameters
        ----------
        Z : array-like, shape (n_samples, n_features)
            Embeddings. Two features are plotted directly. With more features, the
            embeddings are projected onto the unit sphere, and their two principal
            components are plotted. Rows of NaN, from images that cannot be read, are
            left out.
        y : array-like, shape (n_samples,), or None, default=None
            Class labels.
        bandwidth : float, default=0.15
            Standard deviation of the kernel that smooths the densities, in radians.
        ax : matplotlib Axes, array-like of Axes or None, default=None
            As for `plot`.

        Returns
        -------
        display : HypersphereDisplay

        Raises
        ------
        ValueError
            If there are fewer than 2 embeddings or features, an embedding is zero, or
            `y` has no class labels.
        """
        if isinstance(bandwidth, bool) or not POSITIVE.is_satisfied_by(bandwidth):
            raise choice_error("bandwidth", "a positive number", bandwidth)
        Z = check_table(
            Z, "Z", dtype=np.float64, ensure_all_finite="allow-nan",
            ensure_min_features=2,
        )  # fmt: skip
        if y is not None:
            check_consistent_length(Z, y)
            y = check_targets(y, "y", "HypersphereDisplay")
            if type_of_target(y) not in ("binary", "multiclass"):
                raise ValueError(
                    "The 'y' parameter of HypersphereDisplay must hold one class label "
                    f"per embedding. Got {type_of_target(y)} values."
                )
        known = ~np.isnan(Z).any(axis=1)
        if known.sum() < 2:
            raise ValueError(
                "Z must have at least 2 rows without NaN. "
                f"Got {known.sum()} of {len(Z)} rows."
            )
        refuse_zero_rows(Z)
        angles = _angles(Z[known])
        grid = np.linspace(-np.pi, np.pi, _N_ANGLES)
        classes = class_densities = None
        if y is not None:
            labels = y[known]
            classes = np.unique(labels)
            class_densities = np.array(
                [_density(angles[labels == one], grid, bandwidth) for one in classes]
            )
        display = cls(
            angles=angles,
            grid=grid,
            density=_density(angles, grid, bandwidth),
            classes=classes,
            class_densities=class_densities,
        )
        return display.plot(ax=ax)

    def plot(self, ax=None, *, cmap="Blues", **kwargs):
        """Plot the ring, and the angles next to it.

        Parameters
        ----------
        ax : matplotlib Axes, array-like of Axes or None, default=None
            One Axes is divided; of several, there must be two. None creates a new
            figure.
        cmap : str or Colormap, default="Blues"
            Of the ring.
        **kwargs : dict
            Passed to matplotlib's `plot` for the lines of the angles.

        Returns
        -------
        display : HypersphereDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        if ax is None:
            _, ax = import_pyplot(self).subplots(
                1, 2, figsize=(10, 4), layout="constrained", width_ratios=(1, 1.3)
            )
        self.axes_ = set_axes_grid(self, ax, 1, 2)[0]
        self._draw_ring(self.axes_[0], cmap)
        self._draw_angles(self.axes_[1], kwargs)
        return self

    def _draw_ring(self, ax, cmap):
        across = np.exp(-(((_RADII - 1) / _THICKNESS) ** 2) / 2)
        self.ring_ = ax.pcolormesh(
            _RADII[:, None] * np.cos(self.grid),
            _RADII[:, None] * np.sin(self.grid),
            across[:, None] * self.density,
            shading="gouraud",
            cmap=cmap,
            vmin=0,
            rasterized=True,
        )
        ax.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")

    def _draw_angles(self, ax, kwargs):
        self.lines_ = []
        if self.classes is None:
            self.lines_ += ax.plot(self.grid, self.density, **kwargs)
        else:
            colors = class_colors(self, len(self.classes))
            for color, density in zip(colors, self.class_densities, strict=True):
                style = {"color": color} | kwargs
                self.lines_ += ax.plot(self.grid, density, **style)
            legend_beside(ax, self.lines_, self.classes)
        ax.axhline(1 / (2 * np.pi), color="gray", linestyle=":", linewidth=1)
        ticks = np.linspace(-np.pi, np.pi, 5)
        ax.set(xlim=(-np.pi, np.pi), ylim=(0, None))
        ax.set(xlabel="angle, radians", ylabel="density")
        ax.set_xticks(ticks, ["-π", "-π/2", "0", "π/2", "π"])


def _angles(Z):
    """Return the directions of rows in the plane."""
    if Z.shape[1] > 2:
        unit = Z / np.linalg.norm(Z, axis=1, keepdims=True)
        if np.ptp(unit, axis=0).max() < _SAME:
            raise ValueError(
                "Z must hold different embeddings. All have the same direction."
            )
        # scikit-learn may be set to return frames.
        Z = np.asarray(PCA(2, svd_solver="covariance_eigh").fit_transform(unit))
    return np.arctan2(Z[:, 1], Z[:, 0])


def _density(angles, grid, bandwidth):
    """Return the mean of von Mises densities around angles, at each of the grid."""
    # A loop, because many samples would need many times the memory at once.
    totals = np.zeros(len(grid))
    for start in range(0, len(angles), 1000):
        offsets = grid[:, None] - angles[start : start + 1000]
        totals += vonmises.pdf(offsets, 1 / bandwidth**2).sum(axis=1)
    return totals / len(angles)
