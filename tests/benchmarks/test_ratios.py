"""`make bench-quick`: what counts as a slow-down. No times are tested."""

import json
import pathlib
import sys

import pytest

from benchmarks import _common
from benchmarks._forks import run_python

BENCHMARKS = pathlib.Path(_common.__file__).parent


@pytest.fixture(scope="module")
def ratios():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import ratios

        yield ratios
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_a_fifth_is_allowed(ratios):
    stored = {"one": 0.5, "two": 2.0}
    pairs = {"one": [0.58, 0.9, 0.1], "two": [2.41], "new": [9.0]}
    rows, slower = ratios.compare(pairs, stored)
    assert slower == ["two"]
    assert [row[-1] for row in rows] == ["1.16", "1.21", "-"]


def test_the_newest_ratio_of_the_same_processor_counts(ratios):
    history = [
        {"processor": "AVX512", "ratios": {"one": 1.0, "two": 2.0}},
        {"processor": "AVX2", "ratios": {"one": 5.0}},
        {"processor": "AVX512", "ratios": {"one": 3.0}},
    ]
    assert ratios.stored_ratios(history, "AVX512") == {"one": 3.0, "two": 2.0}
    assert ratios.stored_ratios(history, "none") == {}


def test_the_history_is_of_cases_that_there_are(ratios):
    history = json.loads(ratios.HISTORY.read_text(encoding="utf-8"))
    assert history
    for record in history:
        assert record["ratios"].keys() <= ratios.CASES.keys()
        assert {"version", "date", "processor"} <= record.keys()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_cases_run_and_are_recorded(ratios, tmp_path):
    pytest.importorskip("skimage", reason="the extra [bench] is not installed")
    history = tmp_path / "history.json"
    script = str(BENCHMARKS / "ratios.py")
    options = ["--quick", "--record", "--history", str(history)]
    done = run_python([script, *options, "--output", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(history.read_text(encoding="utf-8"))
    assert set(record["ratios"]) == set(ratios.CASES)
    assert all(ratio > 0 for ratio in record["ratios"].values())
