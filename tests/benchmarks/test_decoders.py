"""The benchmark of other decoders runs, and those that are libjpeg-turbo agree."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "decoders.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    pytest.importorskip("skimage", reason="the extra [bench] is not installed")
    done = run_python([SCRIPT, "--n-photos", "2", "--rounds", "1"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bench_output" / "decoders.json").read_text())
    results = written["results"]
    assert results["Pillow, resized by Pillow"]["largest"] == 0
    assert results["the package"]["largest"] <= 0.01
    assert results["torchvision.io"]["largest"] <= 0.01
    assert results["Pillow, 1/2"]["mean"] > 0.01
