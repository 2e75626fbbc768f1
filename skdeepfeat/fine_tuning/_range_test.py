"""The learning-rate range test, which leaves no trace."""

import copy
import math
import numbers
from dataclasses import dataclass

import numpy as np
from sklearn.utils._param_validation import Interval, validate_params
from tqdm.auto import tqdm

from .._utils._forks import survives_fork
from ..exceptions import TrainingDivergedError
from ._fit import begin_fit
from ._trial import own_random_state, require_fine_tune

__all__ = ["LearningRateRangeTest", "learning_rate_range_test"]

# A loss this many times its minimum has diverged (Smith's and fastai's habit).
_DIVERGED = 4.0

# Shares of the steps: the decay of the weights that losses are smoothed with, and the
# first steps, whose smoothed loss is too noisy to stop by.
_SPAN = 0.04
_SETTLING = 0.1


@dataclass(frozen=True, eq=False)
class LearningRateRangeTest:
    """What `learning_rate_range_test` found.

    Attributes
    ----------
    learning_rates : ndarray of float64, shape (n_steps_done,)
        Of each step, rising exponentially.
    losses : ndarray of float64, shape (n_steps_done,)
        Of each step's batch, before the step.
    smoothed_losses : ndarray of float64, shape (n_steps_done,)
        The losses freed from the difference between batches (each batch's loss before
        all training is taken off, and the mean of these is added), as means over
        neighboring steps on both sides, the nearest weighted most.
    suggestion : float
        The rate at which the smoothed loss falls fastest, as a function of the
        logarithm of the rate. NaN if it falls nowhere.
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed_losses: np.ndarray
    suggestion: float


@survives_fork
@validate_params(
    {
        "min_learning_rate": [Interval(numbers.Real, 0, None, closed="neither")],
        "max_learning_rate": [Interval(numbers.Real, 0, None, closed="neither")],
        "n_steps": [Interval(numbers.Integral, 10, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def learning_rate_range_test(
    estimator,
    X,
    y,
    *,
    sample_weight=None,
    min_learning_rate=1e-6,
    max_learning_rate=1.0,
    n_steps=100,
):
    """Raise the learning rate step by step and watch the loss (Smith 2017 [1]_).

    Phase two of `fit`, in which body and head train together, is tried out with a rate
    that grows exponentially, one batch at each rate, until the smoothed loss is more
    than 4 times its minimum. It begins where `fit` would: with the head that phase one
    gives, or with the fitted body and head if the estimator has ``warm_start=True``.
    Optimizer, layer-wise decay, losses and augmentation are the estimator's. With
    ``unfreeze="gradual"`` all of the body learns, as it does in the end. The same
    batches go through the network a second time without training, to tell what is
    learned from how batches differ; so the test takes as long as ``2 * n_steps``
    steps of `fit`.

    Nothing is left behind: the estimator, its weights and statistics of batch
    normalization, its `random_state` and the random states of numpy and torch are what
    they were. Only rows of features stay in the cache, where `fit` will find them.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted or not.
    X : array-like of images, as for the estimator's `fit`
    y : array-like, as for the estimator's `fit`
    sample_weight : array-like of shape (n_samples,), default=None
    min_learning_rate : float, default=1e-6
        Of the first step.
    max_learning_rate : float, default=1.0
        Of the last step, if the loss has not diverged before.
    n_steps : int, default=100
        At least 10. X is gone through as often as this takes.

    Returns
    -------
    LearningRateRangeTest

    Raises
    ------
    ValueError
        If the estimator trains no body, or the highest rate is not above the lowest.
    TrainingDivergedError
        If the loss is not a number from the start.

    See Also
    --------
    skdeepfeat.plotting.LearningRateDisplay : Draws it.

    References
    ----------
    .. [1] Leslie N. Smith, "Cyclical learning rates for training neural networks",
       WACV 2017. https://arxiv.org/abs/1506.01186

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import FineTuneClassifier, learning_rate_range_test
    >>> digits = load_digits()
    >>> clf = FineTuneClassifier(image_size=32, random_state=0)
    >>> found = learning_rate_range_test(
    ...     clf, digits.images[:100] / 16, digits.target[:100], n_steps=20
    ... )
    >>> clf = clf.set_params(learning_rate=found.suggestion)
    """
    require_fine_tune(estimator, "learning_rate_range_test")
    if max_learning_rate <= min_learning_rate:
        raise ValueError(
            "The 'max_learning_rate' parameter of learning_rate_range_test must be "
            f"above 'min_learning_rate' ({min_learning_rate:g}). Got "
            f"{max_learning_rate!r} instead."
        )
    if estimator.unfreeze in (None, 0):
        raise ValueError(
            "The 'unfreeze' parameter of the estimator must let some of the body learn "
            "for learning_rate_range_test, as 'learning_rate' is not used otherwise. "
            f"Got {estimator.unfreeze!r} instead. Choose 'all' or a number of stages."
        )
    rates = np.geomspace(min_learning_rate, max_learning_rate, n_steps)
    losses, without = _sweep(estimator, X, y, sample_weight, rates)
    rates = rates[: len(losses)]
    # Batches differ more from each other than training changes a loss at first, so
    # what each would have had anyway is taken off before the losses are smoothed.
    smoothed = without.mean() + _smooth(losses - without, _SPAN * n_steps)
    return LearningRateRangeTest(rates, losses, smoothed, _suggest(rates, smoothed))


def _sweep(estimator, X, y, sample_weight, rates):
    """Return the losses of the steps made, and what they are without training."""
    trial = copy.copy(estimator)
    trial.random_state = own_random_state(estimator)
    plan = {
        "ema_decay": 0.0,
        "checkpoint": None,
        "early_stopping": False,
        # With one epoch, gradual unfreezing begins with all stages.
        "max_epochs": 1,
    }
    reset = not trial._continues()
    prepared = trial._prepare(X, y, sample_weight, reset=reset)
    fit = begin_fit(trial, *prepared, plan=plan)
    neck, rows, _ = fit.prepare_head()
    head = copy.deepcopy(fit.head)
    _, data, _ = fit.load(neck, rows)
    losses = _losses_at(fit, neck, data, rates, _make_stop(len(rates)))
    if len(losses) < 2:
        raise TrainingDivergedError(
            "The loss was no longer a number in one of the first two steps, so there "
            "is no rate to be found. Choose a smaller 'min_learning_rate' (now "
            f"{rates[0]:g}), and look for targets that are not finite."
        )
    # The same batches, from the same start, at a rate that changes nothing.
    fit.head = head
    at_rest = np.zeros(len(losses))
    return losses, _losses_at(fit, neck, data, at_rest, lambda losses: False)


def _losses_at(fit, neck, data, rates, stop):
    """Return the losses of steps at these rates, with a body and optimizer anew."""
    _, run = fit.training_run(neck, len(data))
    # As in `fit`: processes that train together begin with the same weights.
    fit.processes.copy_from_first(run.model)
    with tqdm(
        rates,
        desc="learning-rate range test",
        unit="step",
        disable=fit.settings.verbose < 1 or fit.processes.rank > 0,
    ) as bar:
        return np.array(run.sweep(data, bar, stop))


def _make_stop(n_steps):
    """Return ``stop(losses)``, true when the smoothed loss has diverged."""
    decay, smoothed = math.exp(-1 / (_SPAN * n_steps)), []

    def stop(losses):
        weights = decay ** np.arange(len(losses))[::-1]
        smoothed.append(np.average(losses, weights=weights))
        if len(losses) <= _SETTLING * n_steps:
            return False
        return smoothed[-1] > _DIVERGED * min(smoothed)

    return stop


def _smooth(losses, span):
    """Return means with weights that decay exponentially to both sides.

    The usual one-sided mean lags behind, and so would the suggestion.
    """
    steps = np.arange(len(losses))
    weights = np.exp(-np.abs(steps[:, None] - steps) / span)
    return weights @ losses / weights.sum(axis=1)


def _suggest(rates, smoothed):
    slopes = np.gradient(smoothed, np.log(rates))
    # A loss that blew up may fall back steeply; what counts comes before the minimum.
    slopes = slopes[: smoothed.argmin() + 1]
    steepest = int(slopes.argmin())
    return float(rates[steepest]) if slopes[steepest] < 0 else math.nan
