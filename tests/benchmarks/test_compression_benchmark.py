"""The benchmark of compression runs to its end and goes on with what it has."""

import json
import pathlib

import numpy as np
import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "compression.py"


@pytest.mark.slow
def test_small_run(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(60) % 10
    np.savez(
        tmp_path / "small.npz",
        X_train=images[:40], y_train=labels[:40],
        X_test=images[40:], y_test=labels[40:],
    )  # fmt: skip
    # What the part "tuned" does is what "vgg" does, with a larger network.
    sizes = ["--n-images", 40, "--n-test", 20, "--vgg-epochs", 1, "--seeds", 0]
    sizes += ["--methods", "low_rank", "--drops", 0.5, "--round-epochs", 0]
    sizes += ["--refine-epochs", 1]
    sizes += ["--parts", "vgg", "criteria", "net2net", "--runtimes", "torch"]
    done = run_python([SCRIPT, "--cifar10", "small.npz", *sizes], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "bench_output" / "compression.json").read_text())
    assert {one["part"] for one in records} == {"vgg", "criteria", "net2net"}
    [small] = [one for one in records if "drop" in one]
    before, after = (small["summary"][i]["parameters"] for i in (0, -1))
    assert after < before
    # Widening keeps the outputs.
    widened = next(one for one in records if one.get("name") == "widened")
    assert widened["test"] == records[0]["test"]
    for table in ("vgg:", "criteria:", "net2net:"):
        assert table in done.stdout
