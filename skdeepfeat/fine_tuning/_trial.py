"""Trying an estimator out without changing it."""

import copy

from sklearn.utils import check_random_state

from ._base import BaseFineTune

__all__ = ["own_random_state", "require_fine_tune"]


def require_fine_tune(estimator, caller):
    """Refuse what is not one of the estimators that train a network.

    Parameters
    ----------
    estimator : object
    caller : str
        The function that it was given to.

    Raises
    ------
    TypeError
    """
    if not isinstance(estimator, BaseFineTune):
        raise TypeError(
            f"The 'estimator' parameter of {caller} must be a FineTuneClassifier or a "
            f"FineTuneRegressor. Got {type(estimator).__name__} instead. Of a pipeline "
            "or a search, give the step or the estimator inside."
        )


def own_random_state(estimator):
    """Return a `RandomState` that stands where the estimator's does.

    It may be drawn from: neither the estimator's nor numpy's global one will notice.
    """
    return copy.deepcopy(check_random_state(estimator.random_state))
