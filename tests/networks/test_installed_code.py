"""The state of a package is told without importing it."""

import os
import sys

import pytest

from skdeepfeat.networks._installed_code import (
    digest_code,
    installed_version,
    is_as_imported,
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that is not imported; its files are in the folder."""
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "some_package"
    (folder / "part").mkdir(parents=True)
    for path in (folder / "__init__.py", folder / "part" / "code.py"):
        path.write_text("raise SystemExit('imported')\n")
    return folder


def test_every_change_of_a_file_shows(package):
    found = [digest_code("some_package")]
    assert digest_code("some_package") == found[0]
    code = package / "part" / "code.py"
    code.write_text("x = 1\n")
    found.append(digest_code("some_package"))
    os.utime(code, ns=(1, 1))
    found.append(digest_code("some_package"))
    (package / "more.py").write_text("")
    found.append(digest_code("some_package"))
    code.unlink()
    found.append(digest_code("some_package"))
    assert None not in found
    assert len(set(found)) == len(found)
    assert "some_package" not in sys.modules
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "code.pyc").write_bytes(b"")
    assert digest_code("some_package") == found[-1]


def test_what_is_not_told(package, monkeypatch):
    assert digest_code("no_such_package") is None
    assert installed_version("some_package") is None
    assert installed_version("no_such_package") is None
    assert not is_as_imported("some_package")  # younger than this process
    os.symlink(package / "part", package / "link")
    assert digest_code("some_package") is None
    os.unlink(package / "link")
    assert digest_code("some_package")
    os.symlink("nothing", package / ".#code.py")  # as editors lock a file
    assert digest_code("some_package") is None


def test_version(tmp_path, monkeypatch):
    folder = tmp_path / "some_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    notes = tmp_path / "some_package-1.5.dist-info"
    notes.mkdir()
    (notes / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: some_package\nVersion: 1.5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_version("some_package") == "1.5"
    # A checkout that comes first on the path is another version.
    other = tmp_path / "checkout"
    (other / "some_package").mkdir(parents=True)
    (other / "some_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(other))
    assert installed_version("some_package") is None
