"""The benchmark of int8 runs to its end, with every form of the network."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "int8.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    for package in ("skimage", "nncf", "onnxruntime"):
        pytest.importorskip(package)
    # Fewer layers than those of the default, which take most of the time.
    arguments = ["--model=timm/test_resnet", "--random-weights", "--image-size=32"]
    arguments += ["--n-images=48", "--repeats=1"]
    done = run_python([SCRIPT, *arguments], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bench_output" / "int8.json").read_text())
    accuracies = {one["form"]: one["accuracy"] for one in written["results"]}
    assert {"OpenVINO, float32", "ONNX Runtime, int8"} <= set(accuracies)
    assert min(accuracies.values()) > 0.5  # of four classes
