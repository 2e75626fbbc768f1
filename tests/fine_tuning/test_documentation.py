"""Signature, constraints and documentation of both estimators say the same."""

import ast
import doctest
import inspect
import re

import pytest

from skdeepfeat import FineTuneClassifier, FineTuneRegressor
from skdeepfeat.fine_tuning._documentation import document

KINDS = [FineTuneClassifier, FineTuneRegressor]


def sections(kind):
    """Return the text of each section, and the titles in their order."""
    parts = re.split(r"^(.+)\n-{3,}\n", kind.__doc__, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented_parameters(kind):
    """Return the first line of each parameter, without the name."""
    lines = sections(kind)["Parameters"].replace("\\\n", "").splitlines()
    pairs = [line.split(" : ", 1) for line in lines if re.match(r"\w+ : ", line)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_signature_constraints_and_documentation(kind):
    parameters = inspect.signature(kind).parameters
    documented = documented_parameters(kind)
    assert list(documented) == list(parameters)
    assert kind._parameter_constraints.keys() == parameters.keys()
    for name, parameter in parameters.items():
        found = documented[name].partition("default=")[2]
        assert ast.literal_eval(found) == parameter.default, name


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_model_is_positional(kind):
    parameters = list(inspect.signature(kind).parameters.values())
    assert parameters[0].name == "model"
    assert all(one.kind is one.KEYWORD_ONLY for one in parameters[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_sections_are_those_of_numpydoc_in_their_order(kind):
    assert list(sections(kind)) == [
        "Parameters", "Attributes", "See Also", "Notes", "References", "Examples",
    ]  # fmt: skip


def test_what_the_estimators_have_in_common_is_the_same():
    one, other = map(sections, KINDS)
    for title in ("See Also", "Notes", "References"):
        assert one[title] == other[title]
    assert other["Attributes"].strip() in one["Attributes"]
    assert "multilabel_ : bool" in one["Attributes"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_examples(kind):
    [test] = doctest.DocTestFinder(recurse=False).find(kind, kind.__name__)
    assert len(test.examples) == 8
    assert doctest.DocTestRunner().run(test).failed == 0


def test_without_docstrings():
    class Bare:
        pass

    assert document(FineTuneClassifier)(Bare) is Bare
