"""`skdeepfeat demo`: tests/test_examples.py runs it, here it lacks something."""

import sys

import pytest


@pytest.mark.parametrize("package", ["skimage", "matplotlib"])
def test_without_the_extra(run, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    result = run("demo", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: The demo needs the package {package!r}, which is not installed. "
        "Install it with: pip install 'skdeepfeat[demo]'\n"
    )
    assert not (tmp_path / "out").exists()
