"""The site has every public name and every page."""

import importlib
import pathlib
import re
import tomllib

import pytest

import skdeepfeat
from skdeepfeat import compression, plotting, self_supervised, text

DOCS = pathlib.Path(__file__).parents[1] / "docs"
# Those of people who change the package.
DEVELOPMENT = {"bench", "test", "docs", "lint"}


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
    listed = set()
    for name in ("index", "user_guide", "development"):
        text = (DOCS / f"{name}.md").read_text()
        for block in re.findall(r"```\{toctree\}(.*?)```", text, re.DOTALL):
            listed |= {line for line in block.splitlines() if line}
    assert pages - {"index"} <= listed
