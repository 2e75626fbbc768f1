"""One entry per row of X, none of them missing."""

import numpy as np
import pandas as pd
import pytest

from skdeepfeat._utils._columns import check_column, refuse_missing

NAN = float("nan")


@pytest.mark.parametrize("check", [check_column, refuse_missing])
@pytest.mark.parametrize(
    "values",
    [
        ["a", None],
        ["a", NAN],
        [["a"], [None]],
        [["a"], [NAN]],
        ([1.0], [NAN]),
        [1, pd.NA],
        np.array([["a"], [None]], object),
        pd.Series(["a", None]),
        np.ma.masked_array([0, 1], [False, True]),
    ],
    ids=repr,
)
def test_missing_entries_are_found_in_every_form(check, values):
    with pytest.raises(ValueError, match=r"groups must not have missing.* index 1\."):
        check(values, "groups")


@pytest.mark.parametrize("values", [["a", "b"], [["a"], ["b"]], np.array(["a", "b"])])
def test_a_column_becomes_an_array_of_one_axis(values):
    assert check_column(values, "groups").tolist() == ["a", "b"]


def test_several_outputs():
    refuse_missing([[1, 2], [3, 4]], "y")
    refuse_missing([np.zeros((2, 2)), np.zeros((2, 3))], "y")  # others refuse it
    with pytest.raises(ValueError, match=r"y must not have missing.* index 1\."):
        refuse_missing([[1, 2], [3, NAN]], "y")
