"""The benchmark of scale runs to its end in its smallest form."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "scale.py"


def run(folder, *parts):
    done = run_python([SCRIPT, "--quick", "--parts", *parts, "--output", folder])
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "scale.json").read_text()), done.stdout


@pytest.mark.slow
def test_known_files_and_large_caches(tmp_path):
    document, printed = run(tmp_path, "growth", "known", "large")
    assert [one["n_files"] for one in document["growth"]] == [50, 100]
    assert {"transform", "stat"} < document["known"]["turns"][0].keys()
    assert document["large"]["evict"]["seconds"] > 0
    assert "to reach: 3.0" in printed


@pytest.mark.slow
def test_clusters(tmp_path):
    pytest.importorskip("distributed")
    document, _ = run(tmp_path, "clusters")
    [found] = document["clusters"]
    assert 0 < found["efficiency"][0] <= 1
