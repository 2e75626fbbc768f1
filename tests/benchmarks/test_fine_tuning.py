"""The fine-tuning benchmark: its arithmetic, its errors, and one small run."""

import json
import pathlib

import numpy as np
import pytest

from benchmarks._forks import run_python

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "fine_tuning.py"


def run(*arguments, folder):
    return run_python([SCRIPT, *map(str, arguments)], cwd=folder)


def test_missing_data_is_said(tmp_path):
    done = run("--data", "nowhere.npz", folder=tmp_path)
    assert done.returncode != 0
    assert "nowhere.npz" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    images = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "data.npz",
        X_train=images,
        y_train=labels,
        X_test=images,
        y_test=labels,
    )
    return tmp_path


@pytest.mark.slow
def test_small_run(folder):
    names = ["plain recipe, 4 epochs", "skdeepfeat, statistics of batches"]
    done = run(
        *("--data", "data.npz", "--image-size", 32, "--n-train", 40, "--epochs", 1),
        *("--held-out", 10, "--quick"),
        *("--contenders", *names),
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((folder / "bench_output" / "fine_tuning.json").read_text())
    assert list(written["results"]) == names
    for result in written["results"].values():
        assert len(result["curve"]) == 2
        assert 0 < result["curve"][0][0] < result["curve"][1][0]
        assert all(0 <= accuracy <= 1 for _, accuracy in result["curve"])
    assert written["held_out"] == 10
    assert (folder / "bench_output" / "fine_tuning.png").stat().st_size > 10_000


@pytest.mark.slow
def test_rates_and_accuracies_of_all_contenders(folder):
    arguments = ["--seeds", 1, "--quick", "--data", "data.npz", "--trained", 1]
    done = run(*arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    written = json.loads((folder / "bench_output/tuning_rates.json").read_text())
    [turns] = written["results"].values()
    assert {"plain loop", "skdeepfeat", "skdeepfeat, n_views=2"} <= set(turns)
    for (result,) in turns.values():
        assert result["images_per_s"] > 0
        assert len(result["seconds"]) == 2
        assert 0 <= result["accuracy"] <= 1
    assert "x the loop" in done.stdout
    assert "less skdeepfeat's" in done.stdout
