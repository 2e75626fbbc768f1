"""The benchmark of depthwise convolutions compares the gradients."""

import pathlib

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "depthwise.py"


def test_small_run(tmp_path):
    done = run_python([SCRIPT, "--quick"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "bench_output" / "depthwise.md").read_text(encoding="utf-8")
    assert text == done.stdout
    rows = [line.split("|")[1:-1] for line in text.splitlines() if "5 x 5" in line]
    assert [row[0].strip() for row in rows] == ["float32", "bfloat16"]
    assert float(rows[0][-1]) < 1e-5
    assert float(rows[1][-1]) < 1e-2
