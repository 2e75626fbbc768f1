"""Systems without what only POSIX has, simulated; spawned processes."""

import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from benchmarks._forks import run_python
from skdeepfeat._utils._address import is_address

# What Windows lacks of `os` and `signal`, and modules that it does not have. Packages
# that this one uses are imported before: they know what they run on.
SIMULATED = """
import os, signal, sys, tempfile
import blake3, click.testing, cloudpickle, filelock, huggingface_hub, joblib, numpy
import pandas, platformdirs, PIL.Image, safetensors.torch, sklearn.pipeline, timm
import torch, torchvision, tqdm.auto, asyncio, concurrent.futures, pickle, sqlite3
import joblib.externals.loky, sklearn.linear_model, torch.hub

posix = type(os)("os")
posix.__dict__.update(os.__dict__)
for module in list(sys.modules.values()):
    if getattr(module, "os", None) is os:
        module.os = posix
for name in (
    "fork forkpty register_at_fork getuid geteuid getgid getegid getppid setsid "
    "sched_getaffinity sysconf statvfs fstatvfs O_NOFOLLOW O_NONBLOCK O_CLOEXEC "
    "O_DIRECTORY O_TMPFILE mkfifo chown fchmod fchown getloadavg killpg nice "
    "posix_fadvise posix_fallocate pread pwrite sendfile sync uname"
).split():
    if hasattr(os, name) and name != "getppid":
        delattr(os, name)
os.supports_effective_ids.clear()
os.O_BINARY = 0
for name in dir(signal):
    kept = {"SIGINT", "SIGTERM", "SIG_DFL", "SIG_IGN", "SIGABRT", "SIGSEGV", "SIGILL"}
    if name.startswith("SIG") and name not in kept:
        delattr(signal, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog"):
    sys.modules[name] = None
"""

USED = """
import importlib, pkgutil
import numpy as np
import skdeepfeat
for module in pkgutil.walk_packages(skdeepfeat.__path__, "skdeepfeat."):
    if not module.name.endswith(("__main__", "_demo_search")):
        importlib.import_module(module.name)
from click.testing import CliRunner
from skdeepfeat import FeatureCache, PretrainedFeatureExtractor, load_image_folder
from skdeepfeat.cli import main

X = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    torch.nn.Linear(4, 2),
)
extractor = PretrainedFeatureExtractor(net, image_size=16)
first = extractor.transform(X)
assert FeatureCache().info().n_rows == 4
assert (extractor.transform(X) == first).all()
os.mkdir("a")
for i, image in enumerate(X):
    PIL.Image.fromarray(image).save(f"a/{i}.png")
folder = load_image_folder(".")
extractor.set_params(cache=None)
path = extractor.extract_to(list(folder.data), "features.npy")
assert (np.load(path) == first).all()
for command in (["cache", "info"], ["cache", "check"], ["models", "resnet18"]):
    assert CliRunner().invoke(main, command).exit_code == 0, command
"""


def run(script, cwd, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error::skdeepfeat.CacheWarning", "-c", script],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **environment,
        },
        cwd=cwd,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


@pytest.mark.slow
def test_without_what_only_posix_has(tmp_path):
    run(SIMULATED + USED, tmp_path)
    assert np.load(tmp_path / "features.npy").shape == (4, 4)


SPAWNED = """
import multiprocessing
import numpy as np
from skdeepfeat import FeatureCache, PretrainedFeatureExtractor

def rows(job):
    extractor, X = job
    return extractor.transform(X)

if __name__ == "__main__":
    X = np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), dtype=np.uint8)
    extractor = PretrainedFeatureExtractor(image_size=32, cache=FeatureCache())
    expected = extractor.transform(X)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        [found] = pool.map(rows, [(extractor, X)])
    assert (found == expected).all()
"""


@pytest.mark.slow
def test_a_spawned_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SPAWNED)
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = run_python([script], env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr


def test_a_console_that_cannot_show_a_name(tmp_path):
    (tmp_path / "写真").mkdir()
    script = f"""
    from skdeepfeat.cli import main
    main(["cache", "info", "--cache", {"写真"!r}])
    """
    output = run(textwrap.dedent(script), tmp_path, PYTHONIOENCODING="cp1252")
    assert rb"\u5199\u771f" in output


@pytest.mark.parametrize(
    "path", [r"C:\photos\a.jpg", "C:/photos/a.jpg", r"\\server\share\a.jpg"]
)
def test_paths_of_windows_are_no_addresses(path):
    assert not is_address(path)
    assert not is_address(str(pathlib.PureWindowsPath(path)))
