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


def test_only_what_seems_slower_is_measured_again(ratios):
    def never():
        raise AssertionError

    assert ratios.measure_again([1.1], 1.0, never) == [1.1]
    assert ratios.measure_again([9.0], None, never) == [9.0]


def test_the_best_of_four_trials_counts(ratios):
    trials = iter([[1.5, 1.4], [1.7], [1.25, 1.3], [0.1]])
    assert ratios.measure_again([1.6], 1.0, lambda: next(trials)) == [1.25, 1.3]
    assert next(trials) == [0.1]
    trials = iter([[1.0], [0.1]])
    assert ratios.measure_again([1.6], 1.0, lambda: next(trials)) == [1.0]


def test_cases_of_one_commit_share_an_entry(ratios):
    def record(commit, **more):
        return {"version": "1", "commit": commit, "processor": "AVX2", **more}

    history = [record("a", ratios={"one": 1.0}), record("b", ratios={"one": 2.0})]
    new = record("a", ratios={"two": 3.0})
    joined = ratios.recorded(history, new)
    assert joined == [record("a", ratios={"one": 1.0, "two": 3.0}), history[1]]
    new = record("c", ratios={})
    assert ratios.recorded(history, new) == [*history, new]


def test_commit_of_a_folder_without_git(ratios, tmp_path):
    assert ratios.commit_of(tmp_path / "none") == (None, None)


def test_the_table_is_that_of_the_readme(ratios):
    history = json.loads(ratios.HISTORY.read_text(encoding="utf-8"))
    readme = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert ratios.history_table(history) in readme


def test_the_history_is_of_cases_that_there_are(ratios):
    history = json.loads(ratios.HISTORY.read_text(encoding="utf-8"))
    assert history
    for record in history:
        assert record["ratios"].keys() <= ratios.CASES.keys()
        assert {"version", "commit", "date", "processor"} <= record.keys()


@pytest.mark.slow
def test_a_case_runs_and_is_recorded(tmp_path):
    # CI runs all cases: `make bench-quick`.
    pytest.importorskip("skimage", reason="the extra [bench] is not installed")
    history = tmp_path / "history.json"
    script = str(BENCHMARKS / "ratios.py")
    options = ["--quick", "--cases", "warm, files", "--history", str(history)]
    options += ["--output", str(tmp_path)]
    done = run_python([script, "--record", *options])
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(history.read_text(encoding="utf-8"))
    (ratio,) = record["ratios"].values()
    assert ratio > 0
    # As if it had been 1,000 times as fast.
    record["ratios"] = {"warm, files": ratio / 1000}
    history.write_text(json.dumps([record]), encoding="utf-8")
    done = run_python([script, *options])
    assert done.returncode == 1
    assert "More than 20 % slower than stored: warm, files." in done.stderr
