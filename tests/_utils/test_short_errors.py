"""No error of a public function is as long as the user's data."""

import traceback

import numpy as np
import pytest

from skdeepfeat import FineTuneClassifier, FineTuneRegressor
from skdeepfeat._utils._public_function import public_function
from skdeepfeat._utils._short_errors import shorten

LONG = "x" * 1_000_000
X = np.zeros((4, 8, 8, 3), np.uint8)


def fail(text):
    try:
        float(text)
    except ValueError as error:
        raise TypeError(f"Got {text} instead.", 3) from error


@pytest.mark.parametrize("text", ["short", LONG])
def test_the_texts_of_an_error_and_of_its_cause_are_cut(text):
    with pytest.raises(TypeError) as caught:
        public_function(fail)(text)
    shown = "".join(traceback.format_exception(caught.value))
    assert len(shown) < 10_000
    assert "could not convert string to float: " in shown
    assert f"{text[-5:]} instead." in shown
    assert caught.value.args[1] == 3
    assert ("(1,000,013 characters)" in shown) == (text is LONG)


def test_errors_that_lead_to_each_other():
    first, second = ValueError("a" * 10_000), ValueError("short")
    first.__context__, second.__context__ = second, first
    shorten(first)
    assert len(str(first)) < 2_000
    assert second.args == ("short",)


@pytest.mark.parametrize(
    "call",
    [
        lambda: FineTuneClassifier(cache=None).fit(X, [LONG] * 4),
        lambda: FineTuneClassifier(cache=None).fit(X, [0, 1] * 2, [LONG] * 4),
        lambda: FineTuneClassifier(flat_image_shape=(1, 1)).fit([[LONG]] * 2, [0, 1]),
        lambda: FineTuneRegressor(cache=None).fit(X, [LONG] * 4),
    ],
)
def test_long_values_in_the_data(call):
    with pytest.raises(ValueError, match="x") as caught:
        call()
    assert len("".join(traceback.format_exception(caught.value))) < 20_000
