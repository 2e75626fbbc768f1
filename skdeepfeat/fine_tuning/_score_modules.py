"""The fitted head as modules, for `skdeepfeat.inspection`."""

import copy

from torch import nn

from ._classifier import DecisionFunction, FineTuneClassifier


def score_modules(estimator):
    """Return what a fitted estimator computes from features, as two modules.

    Parameters
    ----------
    estimator : FineTuneClassifier or FineTuneRegressor
        Fitted.

    Returns
    -------
    scores : Module
        From features of float64 to what `decision_function` or, for regressors,
        `predict` returns.
    results : Module
        From features of float64 to what `predict_proba`, `decision_function` without
        probabilities, or `predict` returns.
    """
    head = copy.deepcopy(estimator.head_).double().requires_grad_(False).eval()
    finish, _, _ = estimator._export_result()
    results = nn.Sequential(head, finish)
    if not isinstance(estimator, FineTuneClassifier):
        return results, results
    return nn.Sequential(head, DecisionFunction(estimator._is_binary())), results
