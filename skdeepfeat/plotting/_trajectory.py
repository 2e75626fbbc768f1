"""TrajectoryDisplay: how networks move through function space during training."""

import itertools

from ..inspection import trajectories
from ._axes import set_axes
from ._pictures import plain_legend, shortened

# One for each group, in the order of the groups.
_MARKERS = ("x", "o", "^", "s", "D", "P", "v", "*", "<", ">")
# Characters: of a name in the legend, of a line of the legend, between two names.
_NAME, _LINE, _SPACE = 40, 60, 8


class TrajectoryDisplay:
    """Visualization of the functions that networks compute during training.

    Each point is an epoch of a fit, and each line is a fit. Points are close to each
    other if the networks make similar predictions for the probe images. It is
    recommended to use `from_estimators` or `from_result` to create a display. All
    parameters are stored as attributes.

    Parameters
    ----------
    points : DataFrame
        One row per epoch of each fit, as in `Trajectories`.
    separation, mixing : float
        As in `skdeepfeat.inspection.Trajectories`.

    Attributes
    ----------
    scatters_ : list of matplotlib PathCollection
        The epochs of each group, in the order of the groups.
    lines_ : list of matplotlib Line2D
        One for each fit.
    colorbar_ : matplotlib Colorbar
        The epochs.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skdeepfeat.inspection.trajectories : The numbers without the plot.

    Notes
    -----
    The points are outputs of the networks and not weights. Weights of fits with
    different seeds cannot be compared: each order of the units of a layer gives other
    weights for the same function.

    References
    ----------
    .. [1] Erhan et al., "Why does unsupervised pre-training help deep learning?",
       JMLR 11, 2010, figures 5 and 6.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat.plotting import TrajectoryDisplay
    >>> rng = np.random.default_rng(0)
    >>> low, high = rng.uniform(0, 0.2, (3, 5, 6, 2)), rng.uniform(0.8, 1, (3, 5, 6, 2))
    >>> fits = {"pretrained": list(low), "random": list(high)}
    >>> TrajectoryDisplay.from_estimators(fits, random_state=0)
    <...>
    """

    def __init__(self, *, points, separation, mixing):
        self.points = points
        self.separation = separation
        self.mixing = mixing

    @classmethod
    def from_estimators(
        cls, fits, *, method="tsne", random_state=None, ax=None, **kwargs
    ):
        """Map fitted estimators and plot their trajectories.

        Parameters
        ----------
        fits, method, random_state :
            As for `skdeepfeat.inspection.trajectories`. The first group is drawn with
            crosses and the second with circles.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `scatter`, such as `cmap` and `s`.

        Returns
        -------
        display : TrajectoryDisplay
        """
        result = trajectories(fits, method=method, random_state=random_state)
        return cls.from_result(result, ax=ax, **kwargs)

    @classmethod
    def from_result(cls, result, *, ax=None, **kwargs):
        """Plot a map of trajectories.

        Parameters
        ----------
        result : Trajectories
            As `skdeepfeat.inspection.trajectories` returns it.
        ax, **kwargs
            As for `from_estimators`.

        Returns
        -------
        display : TrajectoryDisplay
        """
        return cls(**vars(result)).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Plot the map.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `scatter`, such as `cmap` and `s`.

        Returns
        -------
        display : TrajectoryDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        ax = set_axes(self, ax)
        self.lines_ = [
            ax.plot(one["x"], one["y"], color="0.75", linewidth=0.8, zorder=1)[0]
            for _, one in self.points.groupby(["group", "fit"], sort=False)
        ]
        epochs = self.points["epoch"]
        style = {"vmin": epochs.min(), "vmax": epochs.max(), "s": 36, **kwargs}
        groups = self.points.groupby("group", sort=False)
        marked = list(zip(groups, itertools.cycle(_MARKERS), strict=False))
        self.scatters_ = [
            ax.scatter(
                one["x"], one["y"], **{"c": one["epoch"], "marker": marker, **style}
            )
            for (_, one), marker in marked
        ]
        self.colorbar_ = self.figure_.colorbar(self.scatters_[0], ax=ax, label="Epoch")
        self.colorbar_.ax.yaxis.get_major_locator().set_params(integer=True)
        # Entries without the color of an epoch.
        handles = [
            ax.scatter([], [], marker=marker, color="0.3", label=shortened(name, _NAME))
            for (name, _), marker in marked
        ]
        longest = max(len(handle.get_label()) for handle in handles)
        n_columns = max(1, min(3, len(handles), _LINE // (longest + _SPACE)))
        # Above the axes, because points may be anywhere inside.
        place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
        plain_legend(ax, handles=handles, ncols=n_columns, frameon=False, **place)
        # The coordinates have no unit.
        ax.set(xticks=[], yticks=[])
        return self
