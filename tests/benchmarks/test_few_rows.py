"""The benchmark of few images runs to its end."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "few_rows.py"


@pytest.mark.slow
def test_few_rows(tmp_path):
    done = run_python(
        [SCRIPT, "--model", "test_vit", "--image-size", "64", "--sizes", "4"]
        + ["--repeats", "1", "--clock", "cpu", "--quick"],
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "bench_output" / "few_rows.json").read_text())
    runs = document["results"]["4"]
    assert {kind: len(found) for kind, found in runs.items()} == {
        "torch": 1, "first": 1, "second": 1
    }  # fmt: skip
    assert "4 images: the second process starts" in done.stdout
