"""LearningRateDisplay: the loss over a rising learning rate."""

import numpy as np

from ..fine_tuning import learning_rate_range_test
from ._axes import DASHED, set_axes
from ._pictures import plain_legend, shortened

# Characters of a name in the legend.
_NAME = 40


class LearningRateDisplay:
    """Visualization of a learning-rate range test.

    It is recommended to use `from_estimator` or `from_result` to create one. All
    parameters are stored as attributes.

    Parameters
    ----------
    learning_rates, losses, smoothed_losses : ndarray of float, shape (n_steps,)
        As in `LearningRateRangeTest`.
    suggestion : float
        As in `LearningRateRangeTest`.
    estimator_name : str or None, default=None
        Name in the legend.

    Attributes
    ----------
    line_ : matplotlib Line2D
        The smoothed losses.
    raw_line_ : matplotlib Line2D
        The losses of the batches.
    suggestion_line_ : matplotlib Line2D or None
        The suggested learning rate; None if there is none.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    See Also
    --------
    skdeepfeat.learning_rate_range_test : The numbers without the plot.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import FineTuneClassifier
    >>> from skdeepfeat.plotting import LearningRateDisplay
    >>> digits = load_digits()
    >>> clf = FineTuneClassifier(image_size=32, random_state=0)
    >>> LearningRateDisplay.from_estimator(
    ...     clf, digits.images[:100] / 16, digits.target[:100], n_steps=20
    ... )
    <...>
    """

    def __init__(
        self,
        *,
        learning_rates,
        losses,
        smoothed_losses,
        suggestion,
        estimator_name=None,
    ):
        self.learning_rates = learning_rates
        self.losses = losses
        self.smoothed_losses = smoothed_losses
        self.suggestion = suggestion
        self.estimator_name = estimator_name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        sample_weight=None,
        min_learning_rate=1e-6,
        max_learning_rate=1.0,
        n_steps=100,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Run a range test and plot it. The estimator is not changed.

        Parameters
        ----------
        estimator, X, y, sample_weight, min_learning_rate, max_learning_rate, n_steps :
            As for `skdeepfeat.learning_rate_range_test`.
        name : str or None, default=None
            Name in the legend. None is the class of the estimator.
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        **kwargs : dict
            Passed to matplotlib's `plot` for the smoothed losses.

        Returns
        -------
        display : LearningRateDisplay
        """
        result = learning_rate_range_test(
            estimator,
            X,
            y,
            sample_weight=sample_weight,
            min_learning_rate=min_learning_rate,
            max_learning_rate=max_learning_rate,
            n_steps=n_steps,
        )
        name = type(estimator).__name__ if name is None else name
        return cls.from_result(result, name=name, ax=ax, **kwargs)

    @classmethod
    def from_result(cls, result, *, name=None, ax=None, **kwargs):
        """Plot the result of a range test.

        Parameters
        ----------
        result : LearningRateRangeTest
            The result of `learning_rate_range_test`.
        name, ax, **kwargs
            As for `from_estimator`. None shows no name.

        Returns
        -------
        display : LearningRateDisplay
        """
        return cls(**vars(result), estimator_name=name).plot(ax=ax, **kwargs)

    def plot(self, ax=None, *, name=None, **kwargs):
        """Plot the losses over the learning rate.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to plot on. None creates a new figure.
        name : str or None, default=None
            Name in the legend. None is `estimator_name`.
        **kwargs : dict
            Passed to matplotlib's `plot` for the smoothed losses.

        Returns
        -------
        display : LearningRateDisplay
            With its axes and artists.

        Raises
        ------
        ImportError
            If matplotlib is not installed (extra ``[plot]``).
        """
        ax = set_axes(self, ax)
        name = self.estimator_name if name is None else name
        label = "smoothed loss"
        if name is not None:
            label = f"{shortened(name, _NAME)}, {label}"
        (self.line_,) = ax.plot(
            self.learning_rates, self.smoothed_losses, **{"label": label, **kwargs}
        )
        color = self.line_.get_color()
        style = {"label": "loss of each batch", "alpha": 0.3, "linewidth": 1}
        below = self.line_.get_zorder() - 1
        (self.raw_line_,) = ax.plot(
            self.learning_rates, self.losses, color=color, zorder=below, **style
        )
        self.suggestion_line_ = None
        if np.isfinite(self.suggestion):
            label = f"steepest fall: {self.suggestion:.2g}"
            style = {"color": color, "label": label} | DASHED
            self.suggestion_line_ = ax.axvline(self.suggestion, **style)
        ax.set(xscale="log", xlabel="Learning rate", ylabel="Training loss")
        ax.set_ylim(self._limits())
        # The free corner varies: the curve begins at the top if it does not diverge.
        plain_legend(ax, loc="best")
        return self

    def _limits(self):
        """Return limits of the losses, because a divergence would flatten the rest."""
        before = self.losses[: self.smoothed_losses.argmin() + 1]
        low, high = self.losses.min(), before.max()
        margin = max(high - low, 1e-3 * abs(high))
        top = min(self.losses.max() + 0.05 * margin, high + 0.6 * margin)
        return low - 0.05 * margin, top
