"""Which of several choices no other one beats."""

import numpy as np


def is_pareto(scores, costs):
    """Return which points no other one dominates.

    Parameters
    ----------
    scores, costs : array-like of shape (n,)
        High scores and low costs are good. NaN is never in the set.
    """
    scores, costs = np.asarray(scores, float), np.asarray(costs, float)
    at_least = (scores >= scores[:, None]) & (costs <= costs[:, None])
    better = (scores > scores[:, None]) | (costs < costs[:, None])
    return ~(at_least & better).any(axis=1) & np.isfinite(scores) & np.isfinite(costs)
