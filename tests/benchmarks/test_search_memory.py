"""The benchmark of a search's memory runs to its end and counts all its processes."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "search_memory.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "n_fits"), [("frozen", 2 * 2 + 1), ("tuned", 4 * 2 + 1)]
)
def test_small_run(kind, n_fits, tmp_path):
    sizes = ["--n-images=8", "--n-tuned=8", "--folds=2", "--searches", kind]
    sizes += ["--model=timm/test_efficientnet", "--random-weights"]
    done = run_python(
        [SCRIPT, *sizes, "--device=cpu", "--quick"],
        cwd=tmp_path,
        # Only what the script has for children is counted.
        forked_workers=kind != "frozen",
    )
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bench_output" / "search_memory.json").read_text())
    [result] = written["results"]
    assert (result["kind"], result["n_fits"]) == (kind, n_fits)
    if kind == "frozen":
        # The script and its workers, each with torch in it.
        assert result["n_processes"] >= 3
        assert 200 < result["largest_process_mb"] < result["tree_peak_mb"]
    assert f"{result['tree_peak_mb']:.0f}" in done.stdout
