"""The site has every public name and every page."""

import importlib
import pathlib
import re
import sys
import tomllib

import pytest

import skdeepfeat
from skdeepfeat import compression, plotting, self_supervised, text

DOCS = pathlib.Path(__file__).parents[1] / "docs"
# Those of torch and scikit-learn.
FOREIGN_ERRORS = {
    "operator torchvision::nms does not exist",
    "Expected 2D array, got 1D array instead",
    "could not convert string to float",
}
# Those of people who change the package.
DEVELOPMENT = {"bench", "test", "docs", "lint"}


@pytest.fixture
def error_texts(monkeypatch):
    """Import what the site makes its list of errors with."""
    monkeypatch.syspath_prepend(DOCS)
    yield importlib.import_module("error_texts")
    del sys.modules["error_texts"]


@pytest.fixture
def run_examples(monkeypatch):
    """Import what stores the outputs of the examples."""
    monkeypatch.syspath_prepend(DOCS)
    yield importlib.import_module("run_examples")
    del sys.modules["run_examples"]


def test_gallery_has_every_example(run_examples):
    assert sorted(run_examples.FOLDERS) == run_examples.names()


def test_stored_outputs_are_of_the_examples_as_they_are(run_examples):
    stored = {path.stem for path in run_examples.OUTPUTS.glob("*.json")}
    assert stored <= set(run_examples.names())
    old = [name for name in stored if not run_examples.is_current(name)]
    assert not old, f"run: python docs/run_examples.py {' '.join(old)}"


def test_stored_examples_have_pictures(run_examples):
    stored = filter(run_examples.stored, run_examples.names())
    assert not [one for one in stored if not run_examples.picture_of(one).exists()]


def test_errors_that_are_quoted_are_in_the_source(error_texts):
    quoted = re.findall(r"^### `(.*)`$", (DOCS / "faq.md").read_text(), re.M)
    texts = error_texts.all_texts()
    unknown = [one for one in quoted if not any(one in text for text in texts)]
    assert len(quoted) > 30
    assert set(unknown) == FOREIGN_ERRORS


def test_the_list_of_errors_has_every_subject(error_texts):
    table = error_texts.error_table()
    assert len(table) == len(error_texts._SUBJECTS)
    assert sum(map(len, table.values())) > 250


def listed_objects():
    """Return what the tables of the reference name; every name must exist."""
    module, found = None, []
    for line in (DOCS / "api.rst").read_text().splitlines():
        if heading := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = importlib.import_module(heading[1])
        elif name := re.fullmatch(r"   (\w+)", line):
            found.append(getattr(module, name[1]))
    return found


@pytest.mark.parametrize(
    "package", [skdeepfeat, compression, plotting, self_supervised, text]
)
def test_reference_has_every_public_name(package):
    listed = listed_objects()
    missing = [
        name
        for name in package.__all__
        if not any(getattr(package, name) is one for one in listed)
    ]
    assert not missing


def test_every_extra_is_on_the_page_about_installing():
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())
    extras = settings["project"]["optional-dependencies"].keys() - DEVELOPMENT
    table = re.findall(r"^\| (`.*?) \|", (DOCS / "install.md").read_text(), re.M)
    assert set(re.findall(r"`(\w+)`", " ".join(table))) == extras


def test_every_page_is_in_a_table_of_contents():
    pages = {path.stem for path in DOCS.glob("*.md")} | {"api"}
    pages |= {f"coming_from/{path.stem}" for path in (DOCS / "coming_from").iterdir()}
    listed = set()
    for name in ("index", "user_guide", "development", "faq", "coming_from"):
        text = (DOCS / f"{name}.md").read_text()
        for block in re.findall(r"```\{toctree\}(.*?)```", text, re.DOTALL):
            listed |= set(re.findall(r"^(?:.* <)?([\w/]+)>?$", block, re.M))
    assert pages - {"index"} <= listed
