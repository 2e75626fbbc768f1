"""Which stages learn when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdeepfeat.training import first_unfrozen_stage


@pytest.mark.parametrize(
    ("unfreeze", "first"),
    [("all", 0), (None, 5), (0, 5), (1, 4), (3, 2), (5, 0), (99, 0)],
)
def test_at_all_times(unfreeze, first):
    assert {first_unfrozen_stage(unfreeze, 5, epoch, 8) for epoch in range(8)} == {
        first
    }


@pytest.mark.parametrize(
    ("n_stages", "n_epochs", "firsts"),
    [
        (5, 10, [4, 3, 2, 1, 0, 0, 0, 0, 0, 0]),
        (4, 12, [3, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        (4, 4, [2, 0, 0, 0]),
        (2, 8, [1, 1, 0, 0, 0, 0, 0, 0]),
        (5, 1, [0]),
        (1, 3, [0, 0, 0]),
    ],
)
def test_gradual(n_stages, n_epochs, firsts):
    found = [
        first_unfrozen_stage("gradual", n_stages, epoch, n_epochs)
        for epoch in range(n_epochs)
    ]
    assert found == firsts


@given(n_stages=st.integers(1, 60), n_epochs=st.integers(1, 200))
def test_gradual_thaws_from_the_end_and_never_freezes_again(n_stages, n_epochs):
    found = [
        first_unfrozen_stage("gradual", n_stages, epoch, n_epochs)
        for epoch in range(n_epochs)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] < n_stages
    assert found[-1] == 0
    assert min(epoch for epoch, first in enumerate(found) if first == 0) <= n_epochs / 2


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match="'unfreeze' parameter.*Did you mean 'gradual"):
        first_unfrozen_stage("gradul", 4, 0, 2)
