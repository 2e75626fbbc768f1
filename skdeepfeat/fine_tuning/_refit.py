"""Fitted estimators with other networks, and training that continues from them.

`compression` works with these functions instead of the estimators' private members.
"""

from sklearn.base import is_regressor
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ..feature_extraction import load_readable
from ..training import make_loss
from ._rows import refuse_rows
from ._saving import at_rest
from ._targets import checked_y
from ._trial import require_fine_tune
from ._views import with_margin

# Parameters about the user's X or machine. Images are passed as pixels instead.
_ON_PIXELS = {
    "flat_image_shape": None,
    "cache": None,
    "checkpoint": None,
    "on_error": "raise",
    "storage_options": None,
    # It may not accept pixels.
    "teacher": None,
}


def fitted_neck(estimator, caller):
    """Return the `Neck` of a fitted estimator, or raise an error that names a function.

    Raises
    ------
    TypeError
        If it is not one of the fine-tuning estimators.
    NotFittedError
    ValueError
        If it was fitted to rows of numbers.
    """
    require_fine_tune(estimator, caller)
    check_is_fitted(estimator)
    refuse_rows(estimator, caller)
    return estimator._fitted_neck()


def with_networks(estimator, body, head, params=None):
    """Return a fitted estimator like another one, with its own networks.

    Parameters
    ----------
    estimator : BaseFineTune
        Fitted. It is not changed.
    body, head : Module
    params : dict, default=None
        Parameters that differ.

    Returns
    -------
    BaseFineTune
    """
    new = object.__new__(type(estimator))
    attributes = {**vars(estimator), "history_": estimator.history_.copy()}
    vars(new).update(attributes, body_=at_rest(body), head_=at_rest(head))
    return new.set_params(**params or {})


def on_pixels(estimator):
    """Return a fitted estimator like another one that takes decoded images."""
    new = object.__new__(type(estimator))
    vars(new).update(vars(estimator))
    return new.set_params(**_ON_PIXELS)


def as_teacher(estimator):
    """Return a fitted estimator as a teacher that takes decoded images, or None.

    None if its loss gives no probabilities to learn.
    """
    is_taught = is_regressor(estimator) or hasattr(estimator, "predict_proba")
    return on_pixels(estimator) if is_taught else None


def decode_images(estimator, X, y):
    """Decode images once, so that what follows does not need the files.

    Parameters
    ----------
    estimator : BaseFineTune
        Fitted.
    X, y : as for its `fit`

    Returns
    -------
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
        With the margin for random crops. To the estimator of `on_pixels` they are what
        X is to the estimator.
    y : ndarray
        Without the images that cannot be read.
    indices : ndarray of int
        Those of the images in X.
    """
    X = estimator._check_images(X, reset=False)
    y = checked_y(estimator, y, X, dtype=estimator._y_dtype)
    preprocessing = with_margin(estimator._fitted_neck().preprocessing)
    pixels, indices = load_readable(
        X, preprocessing, estimator._extraction_settings(), warns=False
    )
    if len(indices) < len(pixels):
        pixels, y = pixels[indices], y[indices]
    return pixels, y, indices


def loss_of(estimator, y):
    """Return the task of an estimator, its loss without smoothing, and its targets.

    Returns
    -------
    task : {"single", "multilabel", "regression"}
    loss : callable
        ``loss(outputs, targets) -> Tensor of shape (n_samples,)``
    targets : Tensor
    """
    targets = estimator._encode(y)
    return targets.task, make_loss(estimator.loss, targets.task), targets.tensor()


def train_further(estimator, X, y, n_epochs, random_state, teacher=None):
    """Return a copy of a fitted estimator that was trained for more epochs.

    Parameters
    ----------
    estimator : BaseFineTune
        With a body. It is not changed.
    X, y : as for its `fit`
    n_epochs : int
    random_state : int or RandomState
    teacher : estimator, default=None
        Its outputs are learned in addition to y; see `as_teacher`.

    Returns
    -------
    estimator : BaseFineTune
    interrupted : bool
        Whether Ctrl-C ended the training early.
    """
    params = estimator.get_params(deep=False)
    changed = {
        "warm_start": True,
        "max_epochs": n_epochs,
        "early_stopping": False,
        "unfreeze": params["unfreeze"] or "all",
        "teacher": teacher,
        "random_state": check_random_state(random_state).randint(2**31 - 1),
    }
    trained = with_networks(estimator, estimator.body_, estimator.head_, changed)
    trained.fit(X, y)
    done = trained.n_epochs_ - estimator.n_epochs_
    kept = {name: params[name] for name in changed}
    return trained.set_params(**kept), done < n_epochs
