"""The benchmark of a search's memory runs to its end and counts all its processes."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "search_memory.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    sizes = ["--n-images", "20", "--n-tuned", "20", "--folds", "2"]
    done = run_python([SCRIPT, *sizes, "--device", "cpu", "--quick"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bench_output" / "search_memory.json").read_text())
    frozen, tuned = written["results"]
    assert (frozen["kind"], frozen["n_fits"]) == ("frozen", 2 * 2 + 1)
    assert (tuned["kind"], tuned["n_fits"]) == ("tuned", 4 * 2 + 1)
    for result in (frozen, tuned):
        # The script and its workers, each with torch in it.
        assert result["n_processes"] >= 3
        assert 200 < result["largest_process_mb"] < result["tree_peak_mb"]
        assert f"{result['tree_peak_mb']:.0f}" in done.stdout
