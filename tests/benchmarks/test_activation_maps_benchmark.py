"""The benchmark of activation maps runs to its end and times the same images."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "activation_maps.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    # Like the default, and much smaller.
    model = ["--model", "timm/test_efficientnet", "--weights", "random"]
    sizes = ["--n-images", "4", "--repeats", "1"]
    done = run_python([SCRIPT, *model, *sizes], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "bench_output" / "activation_maps.json"
    assert set(json.loads(path.read_text())["seconds"]) == {"forward", "gradcam", "cam"}
