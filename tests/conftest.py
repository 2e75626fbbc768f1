"""Fixtures that the tests of several packages use."""

import math
import os
import pathlib
import shutil
import signal
import tempfile

import pytest
from hypothesis import settings

from benchmarks._forks import forked_workers

# The same examples in every run, however long one takes.
settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")

# Before torch or a hub client is imported: no test reaches for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# For the processes that tests start. `one_thread` does the same for the tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """Keep the tests' default cache away from the user's, and from each other."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SKDEEPFEAT_CACHE_DIR", str(path))
    monkeypatch.setenv("XDG_STATE_HOME", str(path.parent / "state"))
    return path


@pytest.fixture(autouse=True)
def no_choice_by_speed(monkeypatch):
    """Let torch run networks in float32, however busy the machine is.

    Which runtime is cheaper is measured, and a network that counts or stops in its
    `forward` no longer does so in another runtime. Tests of the choice set the same.
    """
    from skdeepfeat.networks.running import _measured_network

    monkeypatch.setattr(_measured_network, "_SECONDS", math.inf)


@pytest.fixture(autouse=True)
def control_c():
    """Let SIGINT interrupt, also where the run is a script's background job.

    A shell lets what it starts with ``&`` ignore SIGINT, and Python leaves it so: no
    KeyboardInterrupt would come, whatever a test sends.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Let torch, NumPy and scikit-learn use one thread; each core has a pytest worker.

    Tiny networks and matrices gain nothing from more. On a busy machine, threads that
    wait for each other at every small step take most of the time.
    """
    import sklearn.linear_model  # noqa: F401 - brings what is limited
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session", autouse=True)
def quick_workers():
    """Let joblib's workers be forks of a process that has imported torch."""
    with forked_workers():
        yield


@pytest.fixture
def shared_data():
    """Return the folder of real images that stands beside a developer's checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real images of ../shared/data are not on this machine")
    return SHARED_DATA


def open_to_all(folder):
    """Say whether every user may pass through `folder` and all that hold it."""
    folder = pathlib.Path(folder).resolve()
    return folder.is_dir() and all(
        place.stat().st_mode & 0o005 == 0o005 for place in [folder, *folder.parents]
    )


@pytest.fixture
def open_directory():
    """Return a new directory that every user can reach.

    pytest's own, and a ``TMPDIR`` made by ``mktemp -d``, are closed to all but one.
    """
    places = [tempfile.gettempdir(), "/tmp", "/var/tmp"]
    place = next(filter(open_to_all, places), None)
    if place is None:
        pytest.skip(f"no directory that every user can reach among {places}")
    path = pathlib.Path(tempfile.mkdtemp(prefix="skdeepfeat-test-", dir=place))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)
