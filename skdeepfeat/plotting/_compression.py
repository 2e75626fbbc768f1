"""CompressionDisplay: score against time or size of smaller networks."""

from .._utils._parameter_errors import choice_error, look_up
from .._utils._pareto import is_pareto
from ..compression import compression_curve
from ._axes import set_axes
from ._pictures import draw_pareto, legend_below

# What the costs are divided by.
_COSTS = {"time": 1, "bytes": 1e6}


class CompressionDisplay:
    """Visualization of the scores and the costs of smaller networks.

    It is recommended to use `from_estimator` to create one, or to pass the result of
    `skdeepfeat.compression.compression_curve`.

    Parameters
    ----------
    curve : DataFrame
        As `compression_curve` returns it.

    Attributes
    ----------
    points_ : list of matplotlib Line2D
        One for each method.
    pareto_ : matplotlib Line2D
        The networks that no other one dominates.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor
    >>> from skdeepfeat.plotting import CompressionDisplay
    >>> digits = load_digits().images[:40] / 16
    >>> extractor = PretrainedFeatureExtractor(image_size=32, cache=None)
    >>> CompressionDisplay.from_estimator(extractor, digits, steps=2, random_state=0)
    <...>
    """

    def __init__(self, *, curve):
        self.curve = curve

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, against="time", ax=None, **parameters
    ):
        """Make networks smaller and smaller, and plot their scores and costs.

        Parameters
        ----------
        estimator, X, y
            As for `skdeepfeat.compression.compression_curve`.
        against : {"time", "bytes"}, default="time"
            As for `plot`.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **parameters : dict
            Passed to `compression_curve`.

        Returns
        -------
        display : CompressionDisplay
        """
        look_up(_COSTS, against, "against")
        curve = compression_curve(estimator, X, y, **parameters)
        return cls(curve=curve).plot(ax=ax, against=against)

    def plot(self, ax=None, *, against="time", column=None, **kwargs):
        """Plot the scores over the times or sizes.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        against : {"time", "bytes"}, default="time"
            Milliseconds per image, or megabytes.
        column : str or None, default=None
            Which time of the curve, such as ``"ms_per_image_torch_1"``. None is the
            last one, whose Pareto set is marked.
        **kwargs : dict
            Passed to matplotlib's `plot` for the points.

        Returns
        -------
        display : CompressionDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        ValueError
            If `against` or `column` is unknown.
        """
        unit = look_up(_COSTS, against, "against")
        column = self._column(against, column)
        # Several curves may have been joined.
        curve = self.curve.reset_index(drop=True)
        is_error = "relative_error" in curve
        score = curve["relative_error" if is_error else "score"]
        cost = curve[column] / unit
        ax = set_axes(self, ax, figsize=(7, 5))
        best = is_pareto(-score if is_error else score, cost)
        self.pareto_ = draw_pareto(ax, cost, score, best)
        self.points_ = []
        names = [name for name in curve["method"].unique() if name != "none"]
        for method, rows in curve.groupby("method", sort=False):
            style = {
                "linestyle": "none",
                "marker": "*" if method == "none" else "o",
                "markersize": 12 if method == "none" else 6,
                "color": "k" if method == "none" else f"C{names.index(method)}",
                "label": "as it is" if method == "none" else method,
            }
            at = rows.index
            self.points_ += ax.plot(cost[at], score[at], **(style | kwargs))
        ax.set(
            xlabel="Megabytes" if against == "bytes" else _in_words(column),
            ylabel="Relative error of the features" if is_error else "Score",
        )
        ax.set_xlim(left=0)
        legend_below(ax, [self.pareto_, *self.points_], 4)
        return self

    def _column(self, against, column):
        times = [name for name in self.curve if name.startswith("ms_per_image")]
        if against == "time" and not times:
            raise choice_error("against", "'bytes' for a curve without times", against)
        if column is None:
            return "bytes" if against == "bytes" else times[-1]
        if column not in times or against == "bytes":
            wanted = f"None or, with against='time', one of {times}"
            raise choice_error("column", wanted, column, times)
        return column


def _in_words(column):
    runtime, batch_size = column.removeprefix("ms_per_image_").split("_")
    return f"Milliseconds per image ({runtime}, batch size {batch_size})"
