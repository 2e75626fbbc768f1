"""Helpers of functions that try an estimator without changing it."""

import copy

import numpy as np
from sklearn.utils import check_random_state

from ._parameters import FineTuneParameters

# Settings of a fit whose result is thrown away.
OF_TRIAL = {"checkpoint": None, "early_stopping": False, "ema_decay": 0.0}


def require_fine_tune(estimator, caller):
    """Raise if an object is not one of the fine-tuning estimators.

    Parameters
    ----------
    estimator : object
    caller : str
        Name of the function that checks it.

    Raises
    ------
    TypeError
    """
    if not isinstance(estimator, FineTuneParameters):
        raise TypeError(
            f"The 'estimator' parameter of {caller} must be a FineTuneClassifier or a "
            f"FineTuneRegressor. Got {type(estimator).__name__} instead. If it is a "
            "pipeline or a search, pass the step or the estimator in it."
        )


def copy_with(estimator, **attributes):
    """Return a copy with some other attributes. It shares the networks.

    `copy.copy` would pack and unpack the networks, as for a pickle.
    """
    new = object.__new__(type(estimator))
    vars(new).update(vars(estimator), **attributes)
    return new


def own_random_state(estimator):
    """Return a `RandomState` in the same state as that of the estimator.

    Drawing from it changes neither the one of the estimator nor NumPy's global one.
    """
    return copy.deepcopy(check_random_state(estimator.random_state))


def choose_rows(targets, n_samples, random_state):
    """Return the indices of a few images, balanced over the classes.

    Those of a regression are spread over the range of the (first) target.

    Parameters
    ----------
    targets : Targets
    n_samples : int
    random_state : RandomState

    Returns
    -------
    ndarray of int
        In a random order.
    """
    values = targets.values
    order = random_state.permutation(len(values))
    if targets.task == "single":
        # One of each class, then a second one of each, and so on.
        rank_in_class = np.empty(len(order), int)
        for label in np.unique(values):
            members = order[values[order] == label]
            rank_in_class[members] = np.arange(len(members))
        order = order[np.argsort(rank_in_class[order], kind="stable")]
    elif targets.task == "regression":
        ranked = order[np.argsort(values[order, 0], kind="stable")]
        places = np.linspace(0, len(order) - 1, min(n_samples, len(order)))
        return random_state.permutation(ranked[places.round().astype(int)])
    return order[:n_samples]
