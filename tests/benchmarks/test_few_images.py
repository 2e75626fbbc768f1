"""The benchmark of few images: its draws, its arithmetic, and one small run."""

import gzip
import json
import pathlib
import pickle
import sys

import numpy as np
import pytest
from scipy.stats import ttest_rel

from benchmarks._forks import run_python

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "few_images.py"
sys.path.insert(0, str(SCRIPT.parent))
try:
    import _few_images as data
    import few_images as benchmark
finally:
    sys.path.remove(str(SCRIPT.parent))


def run(*arguments, folder):
    return run_python([SCRIPT, *map(str, arguments)], cwd=folder)


@pytest.mark.parametrize("n_of_class", [60, 400, 1000])
def test_draws_are_nested_and_apart_from_what_is_scored_on(n_of_class):
    labels = np.repeat([0, 1, 2], n_of_class)
    few, test = data.draw(labels, 2, seed=3)
    more, same_test = data.draw(labels, 250, seed=3)
    assert set(few) < set(more)
    assert np.array_equal(test, same_test)
    assert not set(more) & set(test)
    assert np.bincount(labels[few]).tolist() == [2, 2, 2]
    assert len(np.unique(np.bincount(labels[test]))) == 1
    assert not np.array_equal(few, data.draw(labels, 2, seed=4)[0])


def test_the_comparison_is_that_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.5, 1, (3, 10))
    scores[1] += 1  # the best of the others
    ways = ["raw", "standardized", "frozen"]
    results = {
        f"digits 2 {seed} {way}": {"accuracy": scores[i, seed]}
        for i, way in enumerate(ways)
        for seed in range(10)
    }
    results["digits 20 0 frozen"] = results["digits 2 11 raw"] = {"accuracy": 0}
    means, mean, half, n_draws = benchmark.compare(
        results, "digits", 2, "frozen", ["raw", "standardized"]
    )
    oracle = ttest_rel(100 * scores[2], 100 * scores[1]).confidence_interval()
    assert (mean - half, mean + half) == pytest.approx((oracle.low, oracle.high))
    assert means["raw"] == pytest.approx(100 * scores[0].mean())
    assert n_draws == 10


def test_only_arrays_are_read_from_a_pickle(tmp_path):
    images = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = tmp_path / "array.gz"
    path.write_bytes(gzip.compress(pickle.dumps(images)))
    assert np.array_equal(data._read_arrays(path), images)
    path.write_bytes(gzip.compress(pickle.dumps(pathlib.Path("a"))))
    with pytest.raises(SystemExit, match="not an array"):
        data._read_arrays(path)


@pytest.mark.parametrize("name", ["cifar10", "aircraft"])
def test_missing_data_is_said(name, tmp_path):
    missing = str(tmp_path / "nowhere")
    output = ["--output", str(tmp_path)]
    with pytest.raises(SystemExit) as raised:
        benchmark.main(["--datasets", name, f"--{name}", missing, *output])
    assert f"--{name} must name" in str(raised.value)
    assert missing in str(raised.value)


def test_a_missing_package_is_said():
    with pytest.raises(SystemExit, match="pip install --no-deps elpv-none"):
        data._folder_of("elpv_none", "elpv-none")


@pytest.mark.slow
def test_small_run_and_going_on(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    images[labels == 1] //= 2
    np.savez(
        tmp_path / "data.npz",
        X_train=images,
        y_train=labels,
        X_test=images,
        y_test=labels,
    )
    arguments = ["--datasets", "cifar10", "--cifar10", "data.npz", "--image-size", 32]
    done = run(*arguments, "--sizes", 2, "--n-draws", 2, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "bench_output" / "few_images_32.json"
    results = json.loads(path.read_text())["results"]
    assert len(results) == 6
    assert all(0 <= result["accuracy"] <= 1 for result in results.values())
    assert "cifar10, 2 images per class" in path.with_suffix(".md").read_text()
    arguments += ["--sizes", 2, "--n-draws", 3, "--go-on"]
    assert run(*arguments, folder=tmp_path).returncode == 0
    went_on = json.loads(path.read_text())["results"]
    assert {key: went_on[key] for key in results} == results  # times included
    assert len(went_on) == 9
