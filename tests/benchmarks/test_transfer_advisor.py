"""The benchmark of TransferAdvisor: its report, its data, and that it continues."""

import argparse
import json
import pathlib
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
try:
    import transfer_advisor as benchmark
finally:
    sys.path.remove(str(ROOT / "benchmarks"))


def test_the_report():
    results = {
        "digits|extract|a": {"seconds": 9.0, "cpu_seconds": 9.0},
        "digits|frozen|a|neck|logistic": {
            "accuracy": 0.8, "seconds": 10.0, "cpu_seconds": 4.0,
        },
        "digits|tuned|efficientnet_lite0|all": {
            "accuracy": 0.9, "seconds": 60.0, "cpu_seconds": 40.0, "n_threads": 2,
        },
        "digits|advisor|120": {
            "accuracy": 0.88, "standard_error": 0.02, "decision_seconds": 24.0,
            "candidate": "a, neck, logistic", "score": 0.86,
        },
    }  # fmt: skip
    [row] = benchmark.rows_of("digits", benchmark.parts_of("digits", results))
    assert row[0] == "digits, 120 s"
    assert row[2] == "0.880"
    assert row[3] == "0.900 (efficientnet_lite0, all)"
    # Four times the seconds of the fits: 4 of a head, and 40 on two cores.
    assert row[6] == f"{24 / (4 * (4 + 20)):.2f}"
    assert row[7] == "0.900"


def test_measured_once(tmp_path):
    arguments = argparse.Namespace(output=tmp_path)
    benchmark.Notes(arguments).measure("a|b", lambda: {"accuracy": 0.5})
    notes = benchmark.Notes(arguments)
    notes.measure("a|b", lambda: pytest.fail("it is known"))
    stored = json.loads((tmp_path / "transfer_advisor.json").read_text())
    assert stored["results"]["a|b"]["accuracy"] == 0.5


def test_digits_are_drawn_by_seed():
    X, y, X_test, y_test, _ = benchmark.load_figures(None)
    assert len(X) == len(y) == 500
    assert len(X_test) == len(y_test)
    assert np.unique(y, return_counts=True)[1].min() > 40
