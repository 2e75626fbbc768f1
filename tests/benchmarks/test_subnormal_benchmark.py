"""The benchmark of subnormal numbers runs to its end and finds them in a network."""

import pathlib
import re

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "subnormal.py"


def test_small_run(tmp_path):
    sizes = ["--rounds", 1, "--image-size", 32, "--batch-size", 1]
    done = run_python([SCRIPT, *sizes], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "bench_output" / "subnormal.md").read_text(encoding="utf-8")
    assert text == done.stdout
    assert len(re.findall(r"^\| (product|quotient|square root|SiLU|GELU)", text, re.M))
    [n_subnormal] = re.findall(r"^\| efficientnet_b0 \| +([\d,]+) \|", text, re.M)
    # Half of its 42,016 scales and shifts.
    assert 20_000 < int(n_subnormal.replace(",", "")) < 22_000
