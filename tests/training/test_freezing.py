"""Which parts learn when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skdeepfeat.training import unfrozen_parts


@pytest.mark.parametrize(
    ("unfreeze", "parts"),
    [
        ("all", range(5)),
        (None, ()),
        (0, range(0)),
        (1, [4]),
        (3, [2, 3, 4]),
        (5, range(5)),
        (99, range(5)),
        ((0,), [0]),
        (["layer1", -1], ["layer1", -1]),
        ("normalization", ["normalization"]),
    ],
)
def test_at_all_times(unfreeze, parts):
    for epoch in range(8):
        assert list(unfrozen_parts(unfreeze, 5, epoch, 8)) == list(parts)


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
        unfrozen_parts("gradual", n_stages, epoch, n_epochs)
        for epoch in range(n_epochs)
    ]
    assert found == [range(first, n_stages) for first in firsts]


@given(n_stages=st.integers(1, 60), n_epochs=st.integers(1, 200))
def test_gradual_thaws_from_the_end_and_never_freezes_again(n_stages, n_epochs):
    found = [
        unfrozen_parts("gradual", n_stages, epoch, n_epochs)
        for epoch in range(n_epochs)
    ]
    firsts = [parts[0] for parts in found]
    assert all(list(parts) == list(range(parts[0], n_stages)) for parts in found)
    assert firsts == sorted(firsts, reverse=True)
    assert firsts[0] < n_stages
    assert firsts[-1] == 0
    assert min(n for n, first in enumerate(firsts) if first == 0) <= n_epochs / 2
