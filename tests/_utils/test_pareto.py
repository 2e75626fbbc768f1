"""The Pareto set is what no other point dominates."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skdeepfeat._utils._pareto import is_pareto

NUMBERS = st.sampled_from([0.0, 1.0, 2.0, 3.0, np.nan])


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6))
def test_by_definition(points):
    scores, costs = np.array(points).reshape(-1, 2).T
    for k, found in enumerate(is_pareto(scores, costs)):
        dominated = any(
            scores[i] >= scores[k]
            and costs[i] <= costs[k]
            and (scores[i] > scores[k] or costs[i] < costs[k])
            for i in range(len(points))
        )
        assert found == (np.isfinite([scores[k], costs[k]]).all() and not dominated)
