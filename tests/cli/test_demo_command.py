"""`skdeepfeat demo`: tests/test_examples.py runs it, here it lacks something."""

import logging
import sys

import numpy as np
import pytest

from skdeepfeat import FeatureCache


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


@pytest.mark.slow
def test_every_image_goes_through_the_network_once(tmp_path, monkeypatch, caplog):
    pytest.importorskip("skimage")
    pytest.importorskip("matplotlib")
    from skdeepfeat.cli import _demo_search

    one = {"logistic regression": _demo_search.CLASSIFIERS["logistic regression"]}
    monkeypatch.setattr(_demo_search, "CLASSIFIERS", one)
    X = np.random.default_rng(0).integers(0, 256, (20, 25, 25)).astype(np.uint8)
    y = np.repeat(["face", "no face"], 10)
    cache = FeatureCache(tmp_path / "cache")
    with caplog.at_level(logging.INFO, "skdeepfeat"):
        _demo_search.run_task("Faces", X, y, cache)
    text = "computing the features"
    passes = [each.args[0] for each in caplog.records if text in each.msg]
    assert sum(passes) == len(X)
    assert cache.info().n_rows == len(X) * len(_demo_search.LAYERS)
