"""The score of a validation set, from outputs that are already there."""

import numpy as np
from sklearn.metrics import check_scoring

from .._utils._parameter_errors import choice_error
from ._trial import copy_with


def make_score(estimator, scoring):
    """Return ``score(outputs, targets)`` for raw outputs of the head.

    Parameters
    ----------
    estimator : BaseFineTune
        What `fit` learns from y must be there already. It is not changed.
    scoring : str, callable or None
        As the parameter of the estimators.
    """
    if scoring is None:
        return estimator._score_outputs
    scorer = check_scoring(estimator, scoring)

    def score(outputs, targets):
        fitted = with_outputs(estimator, outputs)
        y = estimator._decode(targets)
        try:
            return scorer(fitted, np.arange(len(outputs)), y)
        except AttributeError as error:  # such as predict_proba with loss="hinge"
            wanted = f"a scorer that can be computed from this estimator ({error})"
            raise choice_error("scoring", wanted, scoring) from error

    return score


def with_outputs(estimator, outputs):
    """Return an estimator whose X is the positions of known outputs."""

    def outputs_at(X, refuse_failures=False):
        return outputs[np.asarray(X)]

    return copy_with(estimator, _outputs=outputs_at)
