"""The truncation benchmark runs to its end and orders layers by what they cost."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "truncation.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    arguments = ["--model", "resnet18", "--n-images", "2", "--repeats", "1"]
    done = run_python([SCRIPT, *arguments, "--device", "cpu"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bench_output" / "truncation.json").read_text())
    shares = [result["share_of_operations"] for result in written["results"]]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert written["results"][0]["layer"] in done.stdout
