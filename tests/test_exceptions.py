"""Errors carry their place, survive pickling and suggest what was meant."""

import pickle

import pytest

from skdeepfeat import BadImageError, BadImageWarning
from skdeepfeat._utils._optional import import_optional
from skdeepfeat._utils._parameter_errors import did_you_mean


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (BadImageError("it is empty"), "it is empty"),
        (BadImageError("it is empty", 3), "index 3: it is empty"),
        (BadImageError("it is empty", 3, "a.png"), "index 3, a.png: it is empty"),
        (BadImageError("it is empty").at(0, "b.png"), "index 0, b.png: it is empty"),
    ],
)
def test_bad_image_error_names_its_place(error, text):
    assert str(error) == text
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.index, again.origin, again.cause) == (
        text,
        error.index,
        error.origin,
        error.cause,
    )


def test_bad_image_warning_carries_the_failures_through_a_pickle():
    warning = BadImageWarning("two", [BadImageError("a", 1), BadImageError("b", 2)])
    again = pickle.loads(pickle.dumps(warning))
    assert str(again) == "two"
    assert [failure.index for failure in again.failures] == [1, 2]


def test_did_you_mean():
    names = ["resnet18", "resnet50", "ResNeXt50", "vgg11"]
    assert did_you_mean("resnet51", names, n=1) == " Did you mean 'resnet50'?"
    assert "'ResNeXt50'" in did_you_mean("resnext-50", names)
    assert did_you_mean("quite another thing", names) == ""


def test_missing_extra_is_named():
    with pytest.raises(
        ImportError, match=r"Drawing needs.*pip install 'skdeepfeat\[plot"
    ):
        import_optional("no_such_module_xyz", extra="plot", purpose="Drawing")
    assert import_optional("json", extra="plot", purpose="x").loads("1") == 1
