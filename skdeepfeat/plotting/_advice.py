"""AdviceDisplay: what TransferAdvisor compared, as scores over the speed."""

from sklearn.utils.validation import check_is_fitted

from .._utils._parameter_errors import choice_error
from .._utils._pareto import is_pareto
from ..model_selection import TransferAdvisor
from ._axes import DASHED, set_axes
from ._pictures import draw_pareto, legend_below, shortened

_TUNED = "fine-tuned"

# Characters above the axes.
_TITLE = 80


class AdviceDisplay:
    """Visualization of the candidates that a `TransferAdvisor` compared.

    Each candidate is a point that shows its images per second and its score. The line
    connects the Pareto set: the candidates that no other one beats in both. The dashed
    line is the highest value of score minus standard error. It is that of the best
    score, or of another score that is more certain. The recommendation is the cheapest
    candidate above the dashed line.

    It is recommended to use `from_estimator` to create one. All parameters are stored
    as attributes.

    Parameters
    ----------
    candidates : DataFrame
        The rows of the stage "decision" of the `results_` of a `TransferAdvisor`.
    score_name : str, default="Score"
        The label of the scores.

    Attributes
    ----------
    points_ : list of matplotlib ErrorbarContainer
        One for each network, and with fine-tuning two.
    pareto_ : matplotlib Line2D
    limit_ : matplotlib Line2D
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skdeepfeat.TransferAdvisor : What is plotted.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import PretrainedFeatureExtractor, TransferAdvisor
    >>> from skdeepfeat.plotting import AdviceDisplay
    >>> digits = load_digits()
    >>> advisor = TransferAdvisor(
    ...     ["efficientnet_lite0"],
    ...     time_budget=20,
    ...     cv=3,
    ...     extractor=PretrainedFeatureExtractor(image_size=32),
    ...     random_state=0,
    ... ).fit(digits.images[:100] / 16, digits.target[:100])
    >>> AdviceDisplay.from_estimator(advisor)
    <...>
    """

    def __init__(self, *, candidates, score_name="Score"):
        self.candidates = candidates
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Plot the candidates of a fitted advisor.

        Parameters
        ----------
        estimator : TransferAdvisor
            Fitted.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `errorbar`.

        Returns
        -------
        display : AdviceDisplay
        """
        if not isinstance(estimator, TransferAdvisor):
            wanted = "a TransferAdvisor"
            raise choice_error("estimator", wanted, estimator, error=TypeError)
        check_is_fitted(estimator, "results_")
        results = estimator.results_
        return cls(
            candidates=results[results["stage"] == "decision"],
            score_name=results.attrs.get("scoring", "score"),
        ).plot(ax=ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Plot the scores over the images per second.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `errorbar`.

        Returns
        -------
        display : AdviceDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        candidates = self.candidates
        is_tuned = candidates["head"] == _TUNED
        # Inches of the legend, two names a row.
        n_names = candidates["network"].groupby(is_tuned).nunique().sum()
        ax = set_axes(self, ax, figsize=(8, 4.5 + 0.12 * n_names))
        limit = (candidates["score"] - candidates["standard_error"].fillna(0)).max()
        label = "highest (score - standard error)"
        self.limit_ = ax.axhline(limit, color="0.5", zorder=1, label=label, **DASHED)
        rates = candidates["images_per_second"]
        scores = candidates["score"]
        self.pareto_ = draw_pareto(ax, rates, scores, is_pareto(scores, -rates))
        self.points_ = _draw_points(ax, candidates, kwargs)
        chosen = candidates[candidates["recommended"]]
        style = {"markersize": 14, "fillstyle": "none", "label": "recommended"}
        [mark] = ax.plot(chosen["images_per_second"], chosen["score"], "ko", **style)
        ax.set(
            xlabel="Images per second at prediction",
            ylabel=f"{self.score_name[:1].upper()}{self.score_name[1:]}",
        )
        title = shortened(", ".join(chosen["candidate"]), _TITLE)
        ax.set_title(title, parse_math=False)
        if rates.max() > 5 * rates.min():
            _make_logarithmic(ax)
        legend_below(ax, [self.limit_, self.pareto_, mark, *self.points_], 2)
        return self


def _draw_points(ax, candidates, kwargs):
    """Draw the candidates in a color for each network, and a marker for fine-tuning."""
    points = []
    networks = sorted(candidates["network"].unique())
    groups = candidates.groupby(["network", candidates["head"] == _TUNED])
    for (network, is_tuned), rows in groups:
        style = {
            "fmt": "^" if is_tuned else "o",
            "color": f"C{networks.index(network)}",
            "markersize": 5,
            "capsize": 2,
            "elinewidth": 1,
            "label": f"{network}, {_TUNED}" if is_tuned else network,
        } | kwargs
        x, y = rows["images_per_second"], rows["score"]
        points.append(ax.errorbar(x, y, yerr=rows["standard_error"], **style))
    return points


def _make_logarithmic(ax):
    from matplotlib import ticker

    ax.set_xscale("log")
    ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
