"""The benchmark of features without labels: its draws, and one small run."""

import json
import pathlib
import sys

import numpy as np
import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "without_labels.py"
sys.path.insert(0, str(SCRIPT.parent))
try:
    import without_labels as benchmark
finally:
    sys.path.remove(str(SCRIPT.parent))


def test_draws_are_stratified_and_leave_the_labels_for_the_settings_alone():
    labels = np.repeat(np.arange(10), 100)
    rows = benchmark.draw(labels, 100, seed=0)
    assert np.bincount(labels[rows]).tolist() == [10] * 10
    assert (rows % 2 == 1).all()
    assert not np.array_equal(rows, benchmark.draw(labels, 100, seed=1))
    assert len(benchmark.draw(labels, 5000, seed=0)) == 1000


@pytest.mark.slow
def test_a_small_run_continues_where_it_ended(tmp_path):
    rng = np.random.default_rng(0)
    data = {}
    for part in ("train", "test"):
        data[f"y_{part}"] = np.arange(200) % 10
        data[f"X_{part}"] = rng.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "cifar.npz", **data)
    arguments = ["--quick", "--cifar10", "cifar.npz", "--parts", "codes", "scratch"]
    outputs = []
    for _ in range(2):
        done = run_python([SCRIPT, *arguments], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.partition("Machine:")[0])
    assert outputs[0] == outputs[1]
    assert "computing the features of" not in done.stderr
    path = tmp_path / "bench_output" / "without_labels.json"
    results = json.loads(path.read_text())["results"]
    assert {key.partition("|")[0] for key in results} == {"codes", "scratch"}
    assert all(0 <= one["accuracy"] <= 1 for one in results.values())
