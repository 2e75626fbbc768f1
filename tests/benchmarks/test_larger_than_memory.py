"""The memory benchmark runs to its end and writes down what it printed."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "larger_than_memory.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    sizes = ["--n-images", "20", "40", "--formats", "npy"]
    done = run_python([SCRIPT, *sizes, "--quick"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads(
        (tmp_path / "bench_output" / "larger_than_memory.json").read_text()
    )
    few, many = written["results"]
    assert (few["n_images"], many["n_images"]) == (20, 40)
    assert many["size_mb"] == pytest.approx(40 * 1280 * 4 / 1e6, rel=0.01)
    assert many["peak_mb"] < 1.2 * few["peak_mb"]
    assert "peak memory" in done.stdout
