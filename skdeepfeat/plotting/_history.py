"""FineTuneHistoryDisplay: losses and scores over the epochs of a fit."""

import itertools

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..fine_tuning import require_fine_tune
from ._axes import DASHED, set_axes
from ._pictures import legend_below, shortened

_PHASES = {"head": "head only", "body": "body and head"}

# Characters above the axes.
_TITLE = 60


class FineTuneHistoryDisplay:
    """Visualization of the epochs of a fit.

    It is recommended to use `from_estimator` to create one. All parameters are stored
    as attributes.

    Parameters
    ----------
    history : DataFrame
        The `history_` of a fitted `FineTuneClassifier` or `FineTuneRegressor`.
    best_epoch : int or None, default=None
        The epoch of phase two whose weights were kept, with early stopping.
    estimator_name : str or None, default=None
        The title.

    Attributes
    ----------
    lines_ : list of matplotlib Line2D
        The training loss, and the validation loss, validation score and learning rate
        if they are shown.
    ax_ : matplotlib Axes
        Axes of the losses.
    score_ax_ : matplotlib Axes or None
        Axes of the validation score, on the right; None if there is no score.
    rate_ax_ : matplotlib Axes or None
        Axes of the learning rate, farther to the right; None if it is not shown.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import FineTuneClassifier
    >>> from skdeepfeat.plotting import FineTuneHistoryDisplay
    >>> digits = load_digits()
    >>> clf = FineTuneClassifier(
    ...     image_size=32, max_epochs=2, early_stopping=True, random_state=0
    ... ).fit(digits.images[:100] / 16, digits.target[:100])
    >>> FineTuneHistoryDisplay.from_estimator(clf)
    <...>
    """

    def __init__(self, *, history, best_epoch=None, estimator_name=None):
        self.history = history
        self.best_epoch = best_epoch
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(
        cls, estimator, *, show_learning_rate=False, name=None, ax=None, **kwargs
    ):
        """Plot the history of a fitted estimator.

        Parameters
        ----------
        estimator : FineTuneClassifier or FineTuneRegressor
            Fitted.
        show_learning_rate : bool, default=False
            Whether to draw the learning rate as well.
        name : str or None, default=None
            The title. None is the class of the estimator.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `plot` for all lines.

        Returns
        -------
        display : FineTuneHistoryDisplay

        Raises
        ------
        TypeError
            If `estimator` has no history, such as a pipeline.
        """
        if not hasattr(estimator, "history_"):
            require_fine_tune(estimator, "FineTuneHistoryDisplay")
        check_is_fitted(estimator, "history_")
        display = cls(
            history=estimator.history_,
            best_epoch=estimator.best_epoch_,
            estimator_name=type(estimator).__name__ if name is None else name,
        )
        return display.plot(ax=ax, show_learning_rate=show_learning_rate, **kwargs)

    def plot(self, ax=None, *, show_learning_rate=False, name=None, **kwargs):
        """Plot the losses over the epochs.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        show_learning_rate : bool, default=False
            Whether to draw the learning rate as well.
        name : str or None, default=None
            The title. None is `estimator_name`.
        **kwargs : dict
            Passed to matplotlib's `plot` for all lines.

        Returns
        -------
        display : FineTuneHistoryDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        ax = set_axes(self, ax)
        self.score_ax_ = self.rate_ax_ = None
        self.lines_ = []
        self._draw(ax, "train_loss", "Training loss", "C0", kwargs)
        if self._has("validation_loss"):
            self._draw(ax, "validation_loss", "Validation loss", "C1", kwargs)
        if self._has("validation_score"):
            self.score_ax_ = ax.twinx()
            self.score_ax_.set_ylabel("Validation score")
            self._draw(
                self.score_ax_, "validation_score", "Validation score", "C2", kwargs
            )
        if show_learning_rate and self._has("learning_rate"):
            self.rate_ax_ = ax.twinx()
            if self.score_ax_ is not None:
                # Behind the numbers and the label of the score.
                end = self.score_ax_.yaxis.get_tightbbox().x1 - ax.bbox.x1
                points = end * 72 / self.figure_.dpi + 8
                self.rate_ax_.spines["right"].set_position(("outward", points))
            self.rate_ax_.set_ylabel("Learning rate")
            self._draw(self.rate_ax_, "learning_rate", "Learning rate", "C7", kwargs)
        self._mark_phases(ax)
        ax.set(xlabel="Epoch", ylabel="Loss")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        title = self.estimator_name if name is None else name
        if title is not None:
            # Above the names of the phases.
            ax.set_title(shortened(title, _TITLE), pad=18, parse_math=False)
        handles = [*self.lines_]
        is_body = (self.history["phase"] == "body").to_numpy()
        kept = is_body & (self.history["epoch"] == self.best_epoch).to_numpy()
        if kept.any():
            style = {"color": "0.5", "label": "Weights kept"} | DASHED
            handles.append(ax.axvline(1 + int(kept.argmax()), **style))
        legend_below(ax, handles, 3)
        return self

    def _has(self, column):
        return bool(self.history[column].notna().any())

    def _draw(self, ax, column, label, color, kwargs):
        # Epochs of both phases are counted on. A line of one epoch needs a marker.
        epochs = np.arange(1, len(self.history) + 1)
        style = {"marker": "o", "markersize": 4, "color": color, "label": label}
        (line,) = ax.plot(epochs, self.history[column].to_numpy(), **(style | kwargs))
        self.lines_.append(line)

    def _mark_phases(self, ax):
        """Mark the phases, with their names above the axes."""
        style = {"ha": "center", "va": "bottom", "fontsize": "small", "color": "0.4"}
        start = 0
        for phase, epochs in itertools.groupby(self.history["phase"]):
            end = start + len(list(epochs))
            if start > 0:
                ax.axvline(start + 0.5, color="0.7", linestyle=":", linewidth=1)
            center, coordinates = (start + end + 1) / 2, ("data", "axes fraction")
            name = _PHASES.get(phase, phase)
            ax.annotate(name, (center, 1.01), xycoords=coordinates, **style)
            start = end
