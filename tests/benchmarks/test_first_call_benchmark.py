"""The benchmarks of the first call and of slow disks run to their end."""

import json
import pathlib

import pytest

from benchmarks._forks import run_python

SCRIPTS = pathlib.Path(__file__).parents[2] / "benchmarks"


def run(script, folder, *arguments):
    done = run_python([SCRIPTS / script, *arguments], cwd=folder)
    assert done.returncode == 0, done.stderr
    [path] = (folder / "bench_output").glob("*.json")
    return json.loads(path.read_text()), done.stdout


@pytest.mark.slow
def test_first_call(tmp_path):
    document, printed = run(
        "first_call.py", tmp_path, "--models", "test_vit", "--pairs", "1"
    )
    [found] = document["results"]
    assert found["slow_imports"] == []
    assert "The largest ratio is" in printed


@pytest.mark.slow
def test_slow_disk(tmp_path):
    arguments = ["--n-images", "3", "--image-size", "32", "--rate", "1e7"]
    document, printed = run("slow_disk.py", tmp_path, *arguments, "--repeats", "1")
    found = {kept: runs[0]["opens"] for kept, runs in document["results"]}
    assert found == {True: 3, False: 6}
    assert "times as fast" in printed
