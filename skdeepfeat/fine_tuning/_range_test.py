"""The learning-rate range test, which does not change the estimator."""

import copy
import math
import numbers
from dataclasses import dataclass

import numpy as np
from sklearn.utils._param_validation import Interval

from .._utils._constraints import POSITIVE
from .._utils._parameter_errors import choice_error
from .._utils._progress import progress_bar
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from ..exceptions import TrainingDivergedError
from ._body_phase import load_images, make_training_run
from ._fit import Fit
from ._fit_settings import FitSettings
from ._trial import OF_TRIAL, copy_with, own_random_state, require_fine_tune

# A loss this many times its minimum has diverged, as in fastai.
_DIVERGED = 4.0

# Fractions of the steps: the decay length of the weights that losses are smoothed with,
# and the first steps, whose smoothed loss is too noisy to stop at.
_SPAN = 0.04
_SETTLING = 0.1


@dataclass(frozen=True, eq=False)
class LearningRateRangeTest:
    """Result of `learning_rate_range_test`.

    Attributes
    ----------
    learning_rates : ndarray of float64, shape (n_steps_done,)
        Learning rate of each step, rising exponentially.
    losses : ndarray of float64, shape (n_steps_done,)
        Loss of the batch of each step, before the step.
    smoothed_losses : ndarray of float64, shape (n_steps_done,)
        The losses without the differences between batches: the loss that each batch had
        before any training is subtracted, and the mean of these losses is added. The
        result is averaged over neighboring steps, with larger weights for nearer ones.
    suggestion : float
        The learning rate at which the smoothed loss falls fastest, as a function of the
        logarithm of the rate. NaN if it never falls.
    """

    learning_rates: np.ndarray
    losses: np.ndarray
    smoothed_losses: np.ndarray
    suggestion: float


@public_function
@validate_params(
    min_learning_rate=[POSITIVE],
    max_learning_rate=[POSITIVE],
    n_steps=[Interval(numbers.Integral, 10, None, closed="left")],
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
    """Increase the learning rate step by step and record the loss (Smith 2017 [1]_).

    Phase two of `fit`, in which body and head train together, runs with a learning rate
    that grows exponentially, one batch at each rate, until the smoothed loss is more
    than 4 times its minimum. It begins as `fit` would: with the head from phase one, or
    with the fitted body and head if the estimator has ``warm_start=True``. Optimizer,
    layer-wise decay, loss and augmentation are those of the estimator. With
    ``unfreeze="gradual"``, the whole body is trained, as at the end of `fit`. The same
    batches go through the network a second time without training, to separate the
    effect of learning from the differences between batches. So the test takes as long
    as ``2 * n_steps`` steps of `fit`.

    The estimator does not change, and neither do the random states of NumPy and torch.
    Only features remain in the cache, where `fit` will find them.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted or not.
    X : array-like of images, as for the estimator's `fit`
        The images.
    y : array-like, as for the estimator's `fit`
        The targets.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the samples. None weights all alike.
    min_learning_rate : float, default=1e-6
        Learning rate of the first step.
    max_learning_rate : float, default=1.0
        Learning rate of the last step, if the loss has not diverged before.
    n_steps : int, default=100
        Number of steps, at least 10. If X has fewer batches, they are repeated.

    Returns
    -------
    LearningRateRangeTest
        The rates, their losses and the suggestion.

    Raises
    ------
    ValueError
        If the estimator trains no body, or the highest rate is not above the lowest.
    TrainingDivergedError
        If the loss is NaN or infinite from the start.

    See Also
    --------
    skdeepfeat.plotting.LearningRateDisplay : Plot the result.

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
        wanted = f"above 'min_learning_rate' ({min_learning_rate:g})"
        raise choice_error("max_learning_rate", wanted, max_learning_rate)
    if estimator.unfreeze in (None, 0):
        raise choice_error(
            "unfreeze",
            "'all' or a number of stages for learning_rate_range_test, because "
            "'learning_rate' is not used without them",
            estimator.unfreeze,
        )
    rates = np.geomspace(min_learning_rate, max_learning_rate, n_steps)
    losses, without = _sweep(estimator, X, y, sample_weight, rates)
    rates = rates[: len(losses)]
    # At first, batches differ more from each other than training changes a loss. So the
    # loss that each has without training is subtracted before smoothing.
    smoothed = without.mean() + _smooth(losses - without, _SPAN * n_steps)
    return LearningRateRangeTest(rates, losses, smoothed, _suggest(rates, smoothed))


def _sweep(estimator, X, y, sample_weight, rates):
    """Return the losses of the steps made, and those of the same batches untrained."""
    trial = copy_with(estimator, random_state=own_random_state(estimator))
    continues = trial._continues()
    data = trial._prepare(X, y, sample_weight, reset=not continues)
    # With one epoch, gradual unfreezing begins with all stages.
    settings = FitSettings.of(trial, **OF_TRIAL, max_epochs=1)
    fit = Fit(trial, data, settings, continues=continues)
    rows, _ = fit.prepare_head()
    head = copy.deepcopy(fit.result.head)
    _, images, _ = load_images(fit, rows)
    losses = _losses_at(fit, images, rates, _make_stop(len(rates)))
    if len(losses) < 2:
        raise TrainingDivergedError(
            "The loss was NaN or infinite in one of the first two steps, so there is "
            "no learning rate to suggest. Choose a smaller 'min_learning_rate' (now "
            f"{rates[0]:g}), and check that all targets are finite."
        )
    # The same batches from the same weights, at a learning rate of zero.
    fit.result.head = head
    constant = np.zeros(len(losses))
    return losses, _losses_at(fit, images, constant, lambda losses: False)


def _losses_at(fit, images, rates, stop):
    """Return the losses of steps at these rates, with a new body and optimizer."""
    _, run = make_training_run(fit, len(images))
    with progress_bar(
        rates,
        desc="learning-rate range test",
        unit="step",
        disable=fit.settings.verbose < 1 or fit.processes.rank > 0,
    ) as bar:
        return np.array(run.sweep(images, bar, stop))


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
    # A loss that diverged may fall steeply again, so only what is before the minimum
    # counts.
    slopes = slopes[: smoothed.argmin() + 1]
    steepest = int(slopes.argmin())
    return float(rates[steepest]) if slopes[steepest] < 0 else math.nan
