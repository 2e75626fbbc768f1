"""The benchmarks' measuring instruments, against quantities that are known."""

import types

import psutil
import pytest

from benchmarks import _common

WORKER = f"""
import subprocess, sys
sys.path.insert(0, {str(_common.HERE)!r})
from _common import serve

def own(job):
    held = bytearray(job["mb"] * 10**6)
    held[::1000] = bytes([1]) * len(held[::1000])
    del held
    return {{}}

def child(job):
    code = (
        "import time; held = bytearray(b'x') * (" + str(job["mb"]) + " * 10**6); "
        "time.sleep(1)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return {{}}

def fail(job):
    raise SystemExit(3)

def echo(job):
    return {{"got": job}}

serve({{"own": own, "child": child, "fail": fail, "echo": echo}})
"""


@pytest.fixture
def worker(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    return str(script)


def test_a_worker_gets_its_job_and_returns_its_result(worker):
    job = {"task": "echo", "paths": ["a b", "ü"]}
    assert _common.run_worker(worker, job)["got"] == job


@pytest.mark.parametrize("task", ["own", "child"])
def test_peak_memory_sees_what_was_freed_again(worker, task):
    small = _common.run_worker(worker, {"task": task, "mb": 1})["peak_mb"]
    large = _common.run_worker(worker, {"task": task, "mb": 201})["peak_mb"]
    assert large - small == pytest.approx(200, abs=20)


def test_peak_memory_is_not_that_of_the_parent(worker):
    held = bytearray(b"x") * 300_000_000
    peak = _common.run_worker(worker, {"task": "echo"})["peak_mb"]
    assert peak < 150 < len(held) / 1e6


def test_a_failing_worker_is_an_error_that_names_it(worker):
    with pytest.raises(RuntimeError, match="'fail' failed with exit status 3"):
        _common.run_worker(worker, {"task": "fail"})


def test_rows_are_counted_by_what_enters_the_first_convolution():
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1)
    )
    with _common.count_rows() as batches, torch.no_grad():
        network(torch.zeros(5, 3, 2, 2))
        network[:1](torch.zeros(2, 3, 2, 2))
        network.to("meta")(torch.zeros(7, 3, 2, 2, device="meta"))
    network.to_empty(device="cpu")(torch.zeros(1, 3, 2, 2))
    assert batches == [5, 2]


def test_a_table_is_markdown_with_aligned_columns():
    table = _common.markdown_table(["name", "n"], [["a", 1], ["longer", 100]])
    assert table.splitlines() == [
        "| name   |   n |",
        "| ------ | --: |",
        "| a      |   1 |",
        "| longer | 100 |",
    ]


def test_spread_says_median_and_extremes():
    assert _common.spread([3.0, 1.0, 2.0]) == "2.0 (1.0 to 3.0)"
    assert _common.spread([3.14], 2) == "3.14"


def test_the_work_of_others_is_seen(monkeypatch):
    clock = types.SimpleNamespace(perf_counter=iter([5.0, 7.0]).__next__)
    monkeypatch.setattr(_common, "time", clock)
    monkeypatch.setattr(_common, "_busy_seconds", iter([10.0, 14.0]).__next__)
    monkeypatch.setattr(_common, "_own_seconds", iter([1.0, 2.0]).__next__)
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    machine = {}
    with _common.watch_others(machine):
        pass
    # Of 2 seconds of 2 CPUs, 4 were busy, 1 of them with this process.
    assert machine["cpu_share_of_others"] == 0.75


def test_seconds_are_those_of_the_machine_and_of_this_process():
    busy, own = _common._busy_seconds(), _common._own_seconds()
    assert busy > 0 and own > 0
    assert _common._busy_seconds() >= busy and _common._own_seconds() >= own
