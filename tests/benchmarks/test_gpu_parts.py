"""`benchmarks/gpu.sh`: a part that hangs or fails loses nothing of the others."""

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from benchmarks import _common

BENCHMARKS = pathlib.Path(_common.__file__).parent


@pytest.fixture(scope="module")
def gpu_parts():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import _gpu_parts

        yield _gpu_parts
    finally:
        sys.path.remove(str(BENCHMARKS))


def script(text):
    return [sys.executable, "-c", text]


def test_a_part_that_hangs_is_ended_with_what_it_started(gpu_parts, tmp_path):
    alive = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(alive)!r}).touch()"
    text = (
        "import subprocess, sys, time; print('began', flush=True); "
        f"subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    )
    found = gpu_parts.run_part(script(text), 1.5, tmp_path / "part")
    assert found["state"] == "stopped after 1.5 s"
    time.sleep(2)
    assert not alive.exists()


def test_results_and_failures_are_reported(gpu_parts, tmp_path):
    write = (
        "import json, pathlib, sys; folder = pathlib.Path(sys.argv[-1]); "
        "(folder / 'a.json').write_text(json.dumps({'rate': 3})); "
        "(folder / 'a.md').write_text('| a table |')"
    )
    parts = {
        "one": gpu_parts.run_part(script(write), 60, tmp_path / "one"),
        "two": gpu_parts.run_part(script("raise SystemExit(3)"), 60, tmp_path / "two"),
    }
    assert parts["one"]["results"] == {"a": {"rate": 3}}
    machine = {**_common.describe_machine(), "cpu_share_of_others": 0.0}
    text = gpu_parts.report({"machine": machine, "parts": parts}, tmp_path)
    assert "| a table |" in text
    assert "failed, exit status 3" in text


def test_the_limits_are_eight_minutes(gpu_parts):
    assert sum(gpu_parts.LIMITS.values()) <= 480
    assert set(gpu_parts.commands_of(gpu_parts.parse_arguments([]))) == set(
        gpu_parts.LIMITS
    )


def test_the_name_of_the_gpu(gpu_parts):
    import torch

    name = gpu_parts.describe_gpu("cuda")
    assert (name is not None) == torch.cuda.is_available()
    assert gpu_parts.describe_gpu("cpu") is None


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_script_runs_on_a_cpu(tmp_path):
    gpu_forms = ("bfloat16", "tf32")
    done = subprocess.run(
        [
            *("bash", BENCHMARKS / "gpu.sh", "--device", "cpu", "--quick"),
            *("--parts", "tests", "rates", "--output", tmp_path, "--patience", "5"),
        ],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["parts"]
    assert parts["rates"]["state"] == "done", parts["rates"]["log"]
    found = parts["rates"]["results"]["gpu_rates"]
    assert found["failed"] == []
    kinds = ("network alone", "from memory")
    assert set(found["rates"]) == {
        *(f"in memory, {form}, {kind}" for form in gpu_forms for kind in kinds),
        "files, bfloat16",
        "files, bfloat16, decoded by threads",
        "decoding alone, threads",
        "files, DataLoader loop with a worker per core",
        "fine-tuning, unfreeze='all', plain loop",
        "fine-tuning, unfreeze='all', skdeepfeat",
        "fine-tuning, unfreeze=1, plain loop",
        "fine-tuning, unfreeze=1, skdeepfeat",
        "fine-tuning, unfreeze=1, skdeepfeat, n_views=2",
    }
    for name, rate in found["rates"].items():
        assert rate > 0, name
        assert name in done.stdout
    # Without a device they are skipped.
    assert "skipped" in parts["tests"]["log"]
