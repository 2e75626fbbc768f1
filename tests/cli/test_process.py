"""The command line as a process: start-up, signals, pipes, terminals."""

import os
import pathlib
import pkgutil
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
import tomllib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import skdeepfeat
import skdeepfeat.cli
from benchmarks._forks import run_python, start_python
from skdeepfeat import FeatureCache, PretrainedFeatureExtractor

COMMAND = [sys.executable, "-m", "skdeepfeat"]


def test_version_and_help(run_process):
    version = run_process("--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout == f"skdeepfeat, version {skdeepfeat.__version__}\n"
    shown = run_process("-h")
    assert shown.returncode == 0
    assert "130  interrupted" in shown.stdout
    nothing = run_process()
    assert nothing.returncode == 2
    assert "Commands:" in nothing.stderr


@pytest.mark.parametrize("arguments", ["--help", "extract --help", "cache info"])
def test_start_up_does_not_import_torch(arguments, tmp_path):
    code = (
        "import sys\n"
        "from skdeepfeat.cli import main\n"
        f"main({arguments.split()}, standalone_mode=False)\n"
        "assert not {'torch', 'sklearn', 'pandas', 'PIL'} & set(sys.modules)\n"
        "assert len(sys.modules) < 500"  # with torch it is thousands
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_installed_command_is_the_same():
    project = pathlib.Path(__file__).parents[2] / "pyproject.toml"
    scripts = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["scripts"]
    assert pkgutil.resolve_name(scripts["skdeepfeat"]) is skdeepfeat.cli.main


def test_a_wrong_command(run_process):
    done = run_process("extract", "photos", "-o", "f.npy", "--modl", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Did you mean" in done.stderr.splitlines()[-1]


def test_a_closed_pipe_is_quiet():
    # As `| head` closes it, but for sure before anything is written.
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "cache", "info"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.slow
def test_exit_codes(photos, tmp_path):
    arguments = ["-m", "skdeepfeat", "extract", photos, "--image-size", "32"]
    arguments += ["-o", tmp_path / "f.npy"]
    (photos / "a.png").write_bytes(b"")
    broken = run_python(arguments)
    assert (broken.returncode, broken.stdout) == (1, "")
    assert broken.stderr.splitlines()[-1].startswith("Error: index 0, ")
    assert "Traceback" not in broken.stderr
    done = run_python([*arguments, "--on-error", "nan"])
    assert (done.returncode, done.stdout) == (0, "")
    n_broken = np.isnan(np.load(tmp_path / "f.npy")).all(axis=1)
    assert n_broken.tolist() == [True, False, False, False, False]


ON_A_TERMINAL = """
import os, sys
inner = os.open(sys.argv.pop(1), os.O_RDWR | os.O_NOCTTY)
os.dup2(inner, 2)
os.close(inner)
sys.stderr = open(2, "w", closefd=False)
from skdeepfeat.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [(25, 80), (0, 0)])
def test_progress_on_a_terminal(photos, tmp_path, size):
    outer, inner = pty.openpty()
    termios.tcsetwinsize(inner, size)
    command = ["extract", photos, "-o", tmp_path / "f.npy", "--image-size", "32"]
    process = start_python(["-c", ON_A_TERMINAL, os.ttyname(inner), *command])
    shown = os.read(outer, 4096)
    os.close(inner)  # the process has it open
    while True:
        try:
            shown += os.read(outer, 4096)
        except OSError:  # the other end is closed
            break
    os.close(outer)
    process.communicate()
    assert process.returncode == 0, shown.decode()
    assert b"0/5 [00:00<?" in shown  # how long it took, and what is left
    assert b"100%" in shown


IN_A_GROUP = """
import os
os.setsid()
from skdeepfeat.cli import main
main()
"""


def group_of(number):
    """Return the processes of a group that still run."""
    listed = subprocess.run(
        ["ps", "-e", "-o", "pgid=,pid=,stat="], capture_output=True, text=True
    )
    found = [line.split() for line in listed.stdout.splitlines()]
    return [
        pid for group, pid, stat in found if int(group) == number and stat[0] != "Z"
    ]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ps"), reason="asks ps")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_worker_survives(photos, tmp_path, number):
    rng = np.random.default_rng(0)
    for i in range(200):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{i:03d}.png")
    cache = FeatureCache(tmp_path / "cache")
    options = "--image-size 448 --batch-size 1 --runtime torch --n-jobs 2"
    command = ["extract", photos, "-o", tmp_path / "f.npy", *options.split()]
    process = start_python(
        ["-c", IN_A_GROUP, *command, "--cache", cache.path],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        forked_workers=False,
    )
    deadline = time.monotonic() + 120
    while cache.info().n_rows == 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(group_of(process.pid)) > 2  # itself and two workers, at least
    process.send_signal(number)  # to it alone, not to the group as a terminal does
    _, shown = process.communicate(timeout=120)
    assert process.returncode == 128 + number, shown
    assert shown.splitlines()[-1].startswith("Interrupted. Run the same command again")
    deadline = time.monotonic() + 120
    while group_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group_of(process.pid) == []
    assert cache.info().n_rows > 0
    left = pathlib.Path("/dev/shm").glob(f"joblib_memmapping_folder_{process.pid}_*")
    assert list(left) == []


# The command, which presses Ctrl-C itself when the twentieth batch comes.
INTERRUPTED = """
import os, signal
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from skdeepfeat.cli import main

batches = []

def press_control_c(module, inputs):
    if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3:
        batches.append(inputs[0].device.type != "meta")
        if sum(batches) == 20:
            os.kill(os.getpid(), signal.SIGINT)

register_module_forward_pre_hook(press_control_c)
main()
"""


@pytest.mark.slow
def test_ctrl_c_and_again(photos, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(55):
        pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number:02d}.png")
    n_images = 60
    cache = FeatureCache(tmp_path / "cache")
    output = tmp_path / "f.npy"
    arguments = ["extract", photos, "-o", output, "--image-size", "64"]
    arguments += ["--batch-size", "1", "--runtime", "torch", "--cache", cache.path]
    process = run_python(["-c", INTERRUPTED, *arguments])
    shown = process.stderr
    assert process.returncode == 130, shown
    assert shown.splitlines()[-1] == (
        "Interrupted. Run the same command again to continue."
    )
    assert "Traceback" not in shown
    known = cache.info().n_rows
    assert 0 < known < n_images
    assert not output.exists()

    again = run_python(["-m", "skdeepfeat", *arguments, "--verbose"])
    assert again.returncode == 0, again.stderr
    [said] = [line for line in again.stderr.splitlines() if "computing" in line]
    n_computed = int(re.search(r"features of (\d+) of \d+ images", said)[1])
    # The half-written file may have a row that the cache has not taken in yet.
    assert n_images - known - 1 <= n_computed <= n_images - known
    extractor = PretrainedFeatureExtractor(image_size=64, cache=None)
    paths = pd.read_csv(f"{output}.images.csv")["image"]
    expected = extractor.fit_transform(paths)
    np.testing.assert_allclose(np.load(output), expected, rtol=1e-4, atol=1e-4)
