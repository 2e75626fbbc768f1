"""Helpers of functions that try an estimator without changing it."""

import copy

from sklearn.utils import check_random_state

from ._base import BaseFineTune

__all__ = ["own_random_state", "require_fine_tune"]


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
    if not isinstance(estimator, BaseFineTune):
        raise TypeError(
            f"The 'estimator' parameter of {caller} must be a FineTuneClassifier or a "
            f"FineTuneRegressor. Got {type(estimator).__name__} instead. If it is a "
            "pipeline or a search, give the step or the estimator in it."
        )


def own_random_state(estimator):
    """Return a `RandomState` in the same state as that of the estimator.

    Drawing from it changes neither the one of the estimator nor NumPy's global one.
    """
    return copy.deepcopy(check_random_state(estimator.random_state))
