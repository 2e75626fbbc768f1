"""The sanity check that a network can memorize a handful of images."""

import math
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from torch import nn

from .._utils._constraints import AT_LEAST_2
from .._utils._public_function import public_function
from .._utils._short_errors import validate_params
from .._utils._tensors import without_tensors
from ..exceptions import NonFiniteOutputError, TrainingDivergedError
from ..feature_extraction import errors_at, load_readable
from ._body_phase import load_images, make_training_run
from ._fit import Fit
from ._fit_settings import FitSettings
from ._trial import OF_TRIAL, choose_rows, own_random_state, require_fine_tune

# Scores from which on the images count as memorized.
_ENOUGH = {"single": 1.0, "multilabel": 1.0, "regression": 0.95}

# How the losses of a failed check are interpreted. The first two are multiples of the
# first loss, the last is a loss (targets of a regression have variance 1).
_ROSE = 1.5
_HARDLY_FELL = 0.5
_SOLVED = 0.1

# Momentum of the running statistics of batch normalization; torch's default is 0.1.
_MOMENTUM = 0.2

# Settings without anything that prevents a network from memorizing.
_WITHOUT_REGULARIZATION = {
    **OF_TRIAL,
    "activation_l1": 0.0,
    "augment": None,
    "dropout": 0.0,
    "head_init": "random",
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
    "weight_decay": 0.0,
}


@dataclass(frozen=True, eq=False)
class LearningCheck:
    """Result of `check_can_learn`. Its string is the message.

    Attributes
    ----------
    can_learn : bool
    score : float
        Score of the training images: accuracy, or R^2. NaN if nothing was trained.
    n_samples, n_epochs : int
        Number of training images and of epochs.
    losses : ndarray of float64, shape (n_epochs,)
        Training losses.
    message : str
        The result in words, with advice if the check failed.
    """

    can_learn: bool
    score: float
    n_samples: int
    n_epochs: int
    losses: np.ndarray
    message: str

    def __str__(self):
        return self.message


@public_function
@validate_params(n_samples=[AT_LEAST_2], max_epochs=[AT_LEAST_2])
def check_can_learn(estimator, X, y, *, n_samples=20, max_epochs=60):
    """Check that a network can memorize a few images, as a sanity check.

    A network that cannot reach a perfect score on a handful of images without
    regularization will not learn from thousands (Karpathy 2019 [1]_). A clone of the
    estimator is trained without augmentation, dropout, weight decay, label smoothing,
    mixup, averaged weights, class weights and early stopping, from a random head and
    with a constant learning rate. Network, weights, image size, hidden layers,
    `unfreeze`, `freeze_batch_norm`, optimizer, learning rate, loss and batch size are
    those of the estimator.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        It is not changed.
    X : array-like of images, as for the estimator's `fit`
        The images.
    y : array-like, as for the estimator's `fit`
        The targets.
    n_samples : int, default=20
        Number of images to use, at least 2. They are balanced over the classes, or
        spread over the range of the (first) target.
    max_epochs : int, default=60
        Number of epochs, of phase two or, if the estimator trains the head only, of
        phase one.

    Returns
    -------
    LearningCheck
        The result.

    Raises
    ------
    BadImageError
        With ``on_error="raise"``: one of the images cannot be read.
    NonFiniteOutputError
        The network returns NaN or infinite values for an image before any training.

    References
    ----------
    .. [1] Andrej Karpathy, "A recipe for training neural networks", 2019.
       https://karpathy.github.io/2019/04/25/recipe/

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skdeepfeat import FineTuneClassifier, check_can_learn
    >>> digits = load_digits()
    >>> clf = FineTuneClassifier(image_size=64, random_state=0)
    >>> check = check_can_learn(clf, digits.images / 16, digits.target)
    >>> check.can_learn
    True
    """
    require_fine_tune(estimator, "check_can_learn")
    trial = clone(estimator).set_params(test_time_augmentation=None, teacher=None)
    if hasattr(trial, "class_weight"):
        trial.class_weight = None
    random_state = own_random_state(estimator)
    y = without_tensors(y, "y")
    targets = trial._prepare(X, y).targets
    rows = choose_rows(targets, n_samples, random_state)
    some = targets.take(rows)
    constant = _constant_columns(some)
    if constant is not None:
        return LearningCheck(False, math.nan, len(rows), 0, np.empty(0), constant)
    X, y = _safe_indexing(X, rows), _safe_indexing(y, rows)
    trial.random_state = random_state.randint(2**31 - 1)
    with errors_at(rows):
        data = trial._prepare(X, y)
        losses, diverged = _train(trial, data, max_epochs)
        score = _score(trial, X, data.targets)
    can_learn = not diverged and bool(score >= _ENOUGH[targets.task])
    words = _in_words(score, losses, len(rows), targets.task)
    if can_learn:
        message = f"The set-up can learn: {words}."
        if losses.max() > _ROSE * losses[0]:
            message += (
                f" But the loss first rose to {losses.max():.3g}: a smaller "
                f"'learning_rate' (now {trial.learning_rate:g}) may be better."
            )
    else:
        reason = _contradiction(trial, X, some, rows)
        reason = reason or _reason(trial, losses, diverged)
        message = f"The set-up cannot learn: {words}. {reason}"
    return LearningCheck(can_learn, score, len(rows), len(losses), losses, message)


def _constant_columns(targets):
    """Return a message if a target is constant, else None."""
    if targets.task != "regression":
        return None
    constant = np.flatnonzero(np.ptp(targets.values, axis=0) == 0)
    if len(constant) == 0:
        return None
    which = (
        "all targets are" if targets.n_outputs == 1
        else f"the targets of column(s) {constant.tolist()} are all"
    )  # fmt: skip
    return (
        f"The set-up cannot learn: {which} equal in the {len(targets.values)} rows "
        "that were chosen, so there is nothing to learn from the images. Look at y, or "
        "take more 'n_samples' if few of its rows differ."
    )


def _train(trial, data, max_epochs):
    """Fit the trial; return its losses, and whether they ended as NaN or infinite."""
    settings = FitSettings.of(
        trial,
        **_WITHOUT_REGULARIZATION,
        max_epochs=max_epochs,
        # A head that memorizes the images alone would not test the body.
        head_epochs=max_epochs if trial.unfreeze in (None, 0) else 0,
    )
    fit = Fit(trial, data, settings, continues=False)
    rows, _ = fit.prepare_head()
    records, diverged = fit.result.history, False
    if settings.trains_body:
        _, images, _ = load_images(fit, rows)
        body, run = make_training_run(fit, len(images))
        _quicken_statistics(body)
        try:
            run.fit(images)
        except TrainingDivergedError:
            diverged = True
        fit.result.body, records = body.network, run.history
    trial._keep(fit)
    return np.array([record["train_loss"] for record in records], float), diverged


def _quicken_statistics(body):
    """Let the running statistics of batch normalization adapt in a few steps.

    Images unlike those of the pretraining may have much smaller variances, and the
    check makes few steps. Slow statistics do not mean that the network cannot learn.
    """
    for module in body.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.momentum is not None:
                module.momentum = max(module.momentum, _MOMENTUM)


def _score(trial, X, targets):
    """Return the score of the images that can be read, NaN for outputs of NaN."""
    try:
        outputs = trial._outputs(X)
    except NonFiniteOutputError:
        return math.nan
    # With on_error="nan", images that could not be read have outputs of NaN.
    read = ~np.isnan(outputs).all(axis=1)
    return float(trial._score_outputs(outputs[read], targets.take(read)))


def _in_words(score, losses, n_samples, task):
    name = "R^2" if task == "regression" else "accuracy"
    result = f"{name} {score:.3f}" if np.isfinite(score) else "no finite outputs"
    words = f"{result} on the {n_samples} images that it was trained on"
    if len(losses):
        words += (
            f", loss {losses[0]:.3g} in the first and {losses[-1]:.3g} in the last of "
            f"{len(losses)} epoch(s)"
        )
    return words


def _contradiction(trial, X, targets, rows):
    """Return a message if identical images have different targets, else None."""
    preprocessing = trial._resolve_neck().preprocessing
    pixels, readable = load_readable(
        X, preprocessing, trial._extraction_settings(), warns=False
    )
    first_with = {}
    for place in readable.tolist():
        other = first_with.setdefault(pixels[place].tobytes(), place)
        if np.any(targets.values[other] != targets.values[place]):
            return (
                "Labels contradict each other: the images of rows "
                f"{rows[other]} and {rows[place]} are identical and have different "
                "targets. Look at how X and y were put together."
            )
    return None


def _reason(trial, losses, diverged):
    """Return advice that follows from how the loss changed."""
    rate = f"'learning_rate' (now {trial.learning_rate:g})"
    find = "learning_rate_range_test finds a rate."
    if diverged:
        return (
            f"The loss was NaN or infinite after {len(losses)} epoch(s): the {rate} "
            f"is too large, or pixels or targets are huge. {find}"
        )
    if trial.unfreeze in (None, 0):
        return (
            "Only the head is trained (unfreeze=None), and it cannot distinguish the "
            "images by the features of the frozen body. Unfreeze the body, set "
            "'hidden_layer_sizes', or choose another 'model' or a larger 'image_size'."
        )
    if losses[-1] < _SOLVED:
        return (
            "The loss fell, but only in training mode. In prediction, batch "
            "normalization uses its running statistics, and the outputs differ. A "
            f"smaller {rate} or a larger 'batch_size' (now {trial.batch_size}) reduces "
            "the difference."
        )
    if losses.max() > _ROSE * losses[0]:
        return f"The loss rose instead of falling: the {rate} is too large. {find}"
    if losses[-1] > _HARDLY_FELL * losses[0]:
        return f"The loss hardly fell: the {rate} is too small. {find}"
    return (
        "The loss falls, but not far enough: choose more 'max_epochs', or a larger or "
        f"smaller {rate}. {find}"
    )
