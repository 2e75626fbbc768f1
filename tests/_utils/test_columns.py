"""One entry per row of X, none of them missing."""

import numpy as np
import pandas as pd
import pytest
import torch

from skdeepfeat._utils._columns import check_column, refuse_missing
from skdeepfeat.fine_tuning._targets import checked_y
from skdeepfeat.inspection._labels import check_targets
from skdeepfeat.model_selection._problem import make_problem

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


CODES = torch.tensor([0, 1, 1])
READ_BY = {
    "fine-tuners": lambda y: checked_y(None, y, [0, 1, 2]),
    "inspection": lambda y: check_targets(y, "y", "linear_probe"),
    "groups": lambda y: check_column(y, "y"),
    "advisor": lambda y: make_problem(
        np.zeros((3, 1)), y, groups=None, cv=[([0, 1], [2])], task="auto",
        scoring="accuracy", rng=np.random.RandomState(0),
    ).y,
}  # fmt: skip


@pytest.mark.parametrize("read", READ_BY.values(), ids=READ_BY)
@pytest.mark.parametrize(
    "y",
    [
        CODES.bfloat16(),
        CODES.half(),
        CODES.float().requires_grad_(),
        CODES.bool(),
        CODES.float().to_sparse(),
        CODES.to(torch.float8_e4m3fn),
        torch._neg_view(-CODES.float()),
        list(CODES.bfloat16()),
    ],
    ids=str,
)
def test_tensors_become_arrays(read, y):
    result = read(y)
    assert isinstance(result, np.ndarray)
    assert result.tolist() == [0, 1, 1]


@pytest.mark.parametrize("read", READ_BY.values(), ids=READ_BY)
def test_a_tensor_without_values_is_named(read):
    with pytest.raises(ValueError, match=r"The 'y' parameter .* on meta"):
        read(CODES.to("meta"))


@pytest.mark.parametrize("read", [READ_BY["fine-tuners"], READ_BY["inspection"]])
def test_labels_of_several_types_are_named(read):
    with pytest.raises(ValueError, match=r"The 'y' parameter .* Got int, str"):
        read(np.array(["a", 1, 1], object))
