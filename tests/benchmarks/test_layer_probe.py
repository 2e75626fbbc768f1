"""The benchmark of the layer probe runs to its end and counts one pass each."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "layer_probe.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    arguments = ["--n-images", "60", "--repeats", "1", "--runtimes", "torch"]
    done = run_python([SCRIPT, *arguments, "--caches", "disk"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bench_output" / "layer_probe.json").read_text())
    [[pair]] = [result["pairs"] for result in written["results"]]
    assert pair["neck_images"] == pair["stages_images"] == 60
    assert pair["probe_images"] == 0
    assert pair["stages"] / pair["neck"] == pair["ratio"]
    assert "60 / 60" in done.stdout
