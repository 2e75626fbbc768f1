"""The sanity check whether a set-up can learn a handful of images by heart."""

import math
import numbers
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, validate_params
from torch import nn

from .._utils._forks import survives_fork
from ..exceptions import BadImageError, NonFiniteOutputError, TrainingDivergedError
from ..feature_extraction import load_pixels
from ._fit import begin_fit
from ._trial import own_random_state, require_fine_tune

__all__ = ["LearningCheck", "check_can_learn"]

# Classes can be learned by heart without a fault; numbers nearly.
_ENOUGH = {"single": 1.0, "multilabel": 1.0, "regression": 0.95}

# How a loss that was not enough is read: what it rose to and ended at, as shares of its
# start; and what is as good as nothing (targets of a regression have variance 1).
_ROSE = 1.5
_HARDLY_FELL = 0.5
_SOLVED = 0.1

# Of the running statistics of batch normalization: 1e-6 of the past is left after 60
# steps, instead of 2e-3 with the usual 0.1.
_MOMENTUM = 0.2

# Whatever keeps a network from learning by heart.
_WITHOUT_REGULARISATION = {
    "augment": None,
    "ema_decay": 0.0,
    "checkpoint": None,
    "class_weight": None,
    "dropout": 0.0,
    "early_stopping": False,
    "head_init": "random",
    "label_smoothing": 0.0,
    "mixup": 0.0,
    "schedule": "constant",
    "test_time_augmentation": None,
    "warm_start": False,
    "warmup": 0.0,
    "weight_decay": 0.0,
}


@dataclass(frozen=True, eq=False)
class LearningCheck:
    """What `check_can_learn` found; as a string, the message.

    Attributes
    ----------
    can_learn : bool
    score : float
        On the images that were trained on: accuracy, or R^2. NaN if nothing was
        trained.
    n_samples, n_epochs : int
        How many images were trained on, and for how many epochs.
    losses : ndarray of float64, shape (n_epochs,)
        Of the training.
    message : str
        In words, with what to look at if it cannot.
    """

    can_learn: bool
    score: float
    n_samples: int
    n_epochs: int
    losses: np.ndarray
    message: str

    def __str__(self):
        return self.message


@survives_fork
@validate_params(
    {
        "n_samples": [Interval(numbers.Integral, 2, None, closed="left")],
        "max_epochs": [Interval(numbers.Integral, 2, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def check_can_learn(estimator, X, y, *, n_samples=20, max_epochs=60):
    """Try to learn a few images by heart, as a sanity check of the whole set-up.

    A network that cannot reach a perfect score on a handful of images, with all
    regularisation switched off, will not learn from thousands (Karpathy 2019 [1]_). A
    clone of the estimator is trained without augmentation, dropout, weight decay, label
    smoothing, mixup, ema_decay and early stopping, from a random head and with a
    constant learning rate. What is left as it is: network, weights, image size, hidden
    layers, `unfreeze`, `freeze_batch_norm`, optimizer, learning rate, loss and batch
    size.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        It is not changed.
    X : array-like of images, as for the estimator's `fit`
    y : array-like, as for the estimator's `fit`
    n_samples : int, default=20
        How many images to take, at least 2: as many of each class as possible, or
        spread over the range of the (first) target.
    max_epochs : int, default=60
        Of both body and head; of the head alone if the estimator trains no body.

    Returns
    -------
    LearningCheck

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
    trial = clone(estimator)
    random_state = own_random_state(estimator)
    [_, targets, *_] = trial._prepare(X, y)
    rows = _choose_rows(targets, n_samples, random_state)
    some = targets.take(rows)
    constant = _constant_columns(some)
    if constant is not None:
        return LearningCheck(False, math.nan, len(rows), 0, np.empty(0), constant)
    X, y = _safe_indexing(X, rows), _safe_indexing(y, rows)
    _simplify(trial, max_epochs, random_state)
    try:
        prepared = trial._prepare(X, y)
        losses, diverged = _train(trial, prepared)
        score = _score(trial, X, prepared[1])
    except BadImageError as error:
        raise error.at(int(rows[error.row]), error.origin) from None
    except NonFiniteOutputError as error:
        raise error.at(sorted(rows[list(error.rows)].tolist())) from None
    can_learn = not diverged and score >= _ENOUGH[targets.task]
    words = _in_words(score, losses, len(rows), targets.task)
    if can_learn:
        message = f"The set-up can learn: {words}."
        if losses.max() > _ROSE * losses[0]:
            message += (
                f" But the loss rose to {losses.max():.3g} on the way: a smaller "
                f"'learning_rate' (now {trial.learning_rate:g}) may do better."
            )
    else:
        reason = _contradiction(trial, X, some, rows)
        reason = reason or _reason(trial, losses, diverged)
        message = f"The set-up cannot learn: {words}. {reason}"
    return LearningCheck(can_learn, score, len(rows), len(losses), losses, message)


def _choose_rows(targets, n_samples, random_state):
    """Return the rows to train on, in a random order."""
    values = targets.values
    order = random_state.permutation(len(values))
    if targets.task == "single":
        # One of each class, then a second one of each, and so on.
        turn = np.empty(len(order), int)
        for label in np.unique(values):
            members = order[values[order] == label]
            turn[members] = np.arange(len(members))
        order = order[np.argsort(turn[order], kind="stable")]
    elif targets.task == "regression":
        ranked = order[np.argsort(values[order, 0], kind="stable")]
        places = np.linspace(0, len(order) - 1, min(n_samples, len(order)))
        return random_state.permutation(ranked[places.round().astype(int)])
    return order[:n_samples]


def _constant_columns(targets):
    """Return a message if there is nothing to tell apart, else None."""
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


def _simplify(trial, max_epochs, random_state):
    """Set the parameters that learning by heart needs."""
    trains_body = trial.unfreeze not in (None, 0)
    known = trial.get_params(deep=False)
    settings = {k: v for k, v in _WITHOUT_REGULARISATION.items() if k in known}
    trial.set_params(
        **settings,
        max_epochs=max_epochs,
        # A head that has learned the images by itself would say nothing of the body.
        head_epochs=0 if trains_body else max_epochs,
        random_state=random_state.randint(2**31 - 1),
    )


def _train(trial, prepared):
    """Fit the trial; return its losses, and whether they ended as no number."""
    fit = begin_fit(trial, *prepared)
    neck, rows, _ = fit.prepare_head()
    records, diverged = fit.history, False
    if fit.tunes_body:
        _, data, _ = fit.load(neck, rows)
        body, run = fit.training_run(neck, len(data))
        fit.processes.copy_from_first(run.model)
        _quicken_statistics(body)
        try:
            run.fit(data)
        except TrainingDivergedError:
            diverged = True
        fit.body, records = body.network, run.history
    trial._keep(fit)
    return np.array([record["train_loss"] for record in records], float), diverged


def _quicken_statistics(body):
    """Let the running statistics of batch normalization follow within the epochs.

    The check makes few steps, and images unlike those that the network has seen may
    have variances a thousandth of theirs. Slow statistics say nothing of whether the
    network can learn.
    """
    for module in body.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.momentum is not None:
                module.momentum = max(module.momentum, _MOMENTUM)


def _score(trial, X, targets):
    """Return the score on the images that can be read, NaN if it is not a number."""
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
    pixels, failures = load_pixels(X, preprocessing, trial._settings(), math.inf)
    bad = {failure.row for failure in failures}
    first_with = {}
    for place, image in enumerate(pixels):
        if place in bad:
            continue
        other = first_with.setdefault(image.tobytes(), place)
        if np.any(targets.values[other] != targets.values[place]):
            return (
                "Labels contradict each other: the images of rows "
                f"{rows[other]} and {rows[place]} are identical and have different "
                "targets. Look at how X and y were put together."
            )
    return None


def _reason(trial, losses, diverged):
    """Return what to look at, judging by how the loss went."""
    rate = f"'learning_rate' (now {trial.learning_rate:g})"
    find = "learning_rate_range_test finds a rate."
    if diverged:
        return (
            f"The loss was no longer a number after {len(losses)} epoch(s): the {rate} "
            f"is too large, or pixels or targets are huge. {find}"
        )
    if trial.unfreeze in (None, 0):
        return (
            "Only the head learns (unfreeze=None), and it cannot tell the images "
            "apart by the features of the frozen body. Un-freeze the body, give the "
            "head 'hidden_layer_sizes', or choose another 'model' or a larger "
            "'image_size'."
        )
    if losses[-1] < _SOLVED:
        return (
            "The loss fell, but only in training mode; in use, where batch "
            "normalization goes by its running statistics, the network gives other "
            f"results. A smaller {rate} or a larger 'batch_size' (now "
            f"{trial.batch_size}) brings the two together."
        )
    if losses.max() > _ROSE * losses[0]:
        return f"The loss rose instead of falling: the {rate} is too large. {find}"
    if losses[-1] > _HARDLY_FELL * losses[0]:
        return f"The loss hardly fell: the {rate} is too small. {find}"
    return (
        "The loss falls, but not far enough: choose more 'max_epochs', or a larger or "
        f"smaller {rate}. {find}"
    )
