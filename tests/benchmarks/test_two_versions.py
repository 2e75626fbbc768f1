"""The comparison of two versions runs, and its interval is the binomial one."""

import json
import pathlib
import sys

import numpy as np
import pytest

from benchmarks._forks import run_python

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "benchmarks" / "two_versions.py"


@pytest.fixture(scope="module")
def two_versions():
    pytest.importorskip("psutil", reason="the extra [bench] is not installed")
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import two_versions

        yield two_versions
    finally:
        sys.path.remove(str(SCRIPT.parent))


@pytest.mark.parametrize(
    ("n", "expected"),
    # From tables of the sign test: of 10 values the second and the ninth (97.9 %), of
    # 20 the sixth and the fifteenth (95.9 %); of 3 no pair covers that much.
    [(3, (1, 3)), (10, (2, 9)), (20, (6, 15))],
)
def test_interval_of_the_median_is_that_of_the_sign_test(two_versions, n, expected):
    values = np.random.default_rng(0).permutation(np.arange(1, n + 1))
    assert two_versions.median_interval(values.tolist()) == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_checkouts_are_timed_in_pairs(tmp_path):
    pytest.importorskip("psutil", reason="the extra [bench] is not installed")
    pytest.importorskip("skimage", reason="the extra [bench] is not installed")
    arguments = [SCRIPT, REPOSITORY, "--quick", "--new", REPOSITORY]
    arguments += ["--output", tmp_path, "--cases", "cold, files", "warm, arrays"]
    done = run_python(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    seconds = json.loads((tmp_path / "two_versions.json").read_text())["seconds"]
    cases = {"cold, files", "warm, arrays, first call", "warm, arrays, next calls"}
    assert set(seconds) == cases
    assert all(len(one["old"]) == len(one["new"]) == 1 for one in seconds.values())
    assert all(case in done.stdout for case in cases)
