"""Public docstrings pass numpydoc's checks, and their examples run.

The checks are selected much as scikit-learn selects them.
"""

import dataclasses
import doctest
import importlib
import inspect
import pathlib
import re

import pytest

import skdeepfeat

REFERENCE = pathlib.Path(__file__).parents[1] / "docs" / "api.rst"
IGNORED = {
    "PR03",  # parameters "as for" another function are listed together
    "PR04",  # and need no type
    "ES01",  # one line may say it all
    "SA01",  # and nothing else may be related
    "RT02",  # the name of what is returned may be given
    "GL01",  # text begins behind the quotes
    "GL02",  # and may end before them
}


def public_objects():
    """Return {name: object} of what the reference lists."""
    module, found = None, {}
    for line in REFERENCE.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = importlib.import_module(heading[1])
        elif name := re.fullmatch(r"   (\w+)", line):
            found[f"{module.__name__}.{name[1]}"] = getattr(module, name[1])
    return found


def public_methods(kind):
    """Return the names of a class's own public methods and properties."""
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        function = getattr(member, "fget", getattr(member, "__func__", member))
        module = getattr(function, "__module__", None) or ""
        if name[0] != "_" and module.startswith(skdeepfeat.__name__):
            yield name


def faults(path, ignored=()):
    from numpydoc.validate import validate

    for code, message in validate(path)["errors"]:
        if code not in IGNORED and code not in ignored:
            yield f"{path}: {code} {message}"


@pytest.mark.parametrize("name, one", public_objects().items())
def test_docstring_is_valid(name, one):
    pytest.importorskip("numpydoc")
    # Errors, and results of functions, whose fields are attributes.
    returned = inspect.isclass(one) and (
        issubclass(one, BaseException) or dataclasses.is_dataclass(one)
    )
    found = list(faults(name, {"EX01", "PR01"} if returned else ()))
    if inspect.isclass(one):
        for method in public_methods(one):
            found += faults(f"{name}.{method}", {"EX01"})
    assert not found, "\n".join(found)


# Examples that take minutes on a busy machine, or whose result depends on how fast it
# is. Guides have the same code, which test_documents.py runs.
NOT_RUN = {
    "skdeepfeat.TransferAdvisor",
    "skdeepfeat.check_can_learn",
    "skdeepfeat.compression.compress",
    "skdeepfeat.compression.compression_curve",
    "skdeepfeat.compression.export_report",
    "skdeepfeat.inspection.relative_gradient_norms",
    "skdeepfeat.plotting.AdviceDisplay",
    "skdeepfeat.plotting.CompressionDisplay",
}
EXAMPLES = [
    test
    for name, one in public_objects().items()
    if name not in NOT_RUN
    for test in doctest.DocTestFinder().find(one, name)
    if test.examples
]


@pytest.mark.slow
@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
@pytest.mark.filterwarnings("default")
def test_examples_run(test, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.chdir(tmp_path)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.DocTestRunner(optionflags=flags).run(test).failed == 0
