"""The benchmark of soft targets runs to its end, with students of the promised size."""

import json
import pathlib

import numpy as np
import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "distillation.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (90, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(90) % 10
    np.savez(
        tmp_path / "small.npz",
        X_train=images[:70], y_train=labels[:70],
        X_test=images[70:], y_test=labels[70:],
    )  # fmt: skip
    sizes = ["--n-labeled", "20", "--n-unlabeled", "30", "--teacher-size", "32"]
    done = run_python(
        [
            SCRIPT, "--cifar10", "small.npz", *sizes,
            "--epochs", "1", "--output", "out",
        ],
        cwd=tmp_path
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "out" / "distillation.json").read_text())
    records = {one["name"]: one for one in records["records"]}
    tuned, student = records["the tuned network"], records["student, alone"]
    assert student["parameters"] < tuned["parameters"] / 5
    for teacher in ("the tuned network", "the forest"):
        assert records[f"student, taught by {teacher}"]["unlabeled"] == 30
        assert f"student, taught by {teacher}" in done.stdout
