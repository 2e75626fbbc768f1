"""The number of cores that a network uses."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._forks import in_child, released_after_fork

if TYPE_CHECKING:
    import torch

# torch and joblib are imported inside of functions: the cache uses this module, and
# inspecting a cache must not take the time to import torch.

# joblib sets all of these to the same number in the environment of its workers, unless
# the user has set them. torch uses the second if it was built with MKL, else the first.
_FOLLOWED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_SET_WITH_THEM = ("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")

_guard = released_after_fork(threading.Lock())
_n_owners = 0  # the number of `others_wait` contexts, in all threads
_mine = threading.local()


@in_child
def _forget_owners() -> None:
    global _n_owners
    _n_owners = 0  # the threads of the parent do not exist in the child


@contextlib.contextmanager
def others_wait() -> Iterator[None]:
    """Declare, for the body of a ``with``, that other workers wait for this process.

    Without it, `all_cores` does nothing: processes that run the network at the same
    time each use their own cores.
    """
    global _n_owners
    with _guard:
        _n_owners += 1
    try:
        yield
    finally:
        with _guard:
            _n_owners -= 1


@contextlib.contextmanager
def all_cores(device: "torch.device") -> Iterator[None]:
    """Let torch use all cores for the body of a ``with``, while other workers wait.

    joblib divides the cores among its worker processes: with ``n_jobs=-1``, each has
    one thread. While one of them runs the network and the others wait for its features
    (`others_wait`), their cores would be idle. So it uses all cores that this process
    may use, and restores the number of threads afterwards. `LOKY_MAX_CPU_COUNT` and the
    affinities and quotas of the system are respected.

    Nothing is done outside of joblib's workers. Nothing is done either if the user has
    set the number of threads, with ``torch.set_num_threads`` or with
    ``OMP_NUM_THREADS`` in the environment of the script, or in Dask and Ray workers,
    for which a scheduler reserves cores.

    Parameters
    ----------
    device : torch.device
        Where the network runs. Nothing is done unless it is a CPU.

    Notes
    -----
    torch has a number of threads for each thread, and a default for new ones. Only that
    of the calling thread is changed, which must be the one that runs the network. So
    several threads can use this at the same time.
    """
    nested = getattr(_mine, "depth", 0)
    if device.type != "cpu" or not (nested or (_n_owners and _is_set_by_a_pool())):
        yield
        return
    import joblib
    import torch

    before = torch.get_num_threads()
    _mine.depth = nested + 1
    try:
        if not nested:
            _set_threads_here(joblib.cpu_count(), default=before)
        yield
    finally:
        _mine.depth = nested
        if not nested:
            torch.set_num_threads(before)


def _set_threads_here(n_threads: int, default: int) -> None:
    import torch

    torch.set_num_threads(n_threads)
    # This has also changed the default for new threads. The default is what any thread
    # has set last, so another thread restores it.
    thread = threading.Thread(target=torch.set_num_threads, args=(default,))
    thread.start()
    thread.join()


def _is_set_by_a_pool() -> bool:
    """Return whether the number of threads is what joblib gave to this worker."""
    if not multiprocessing.current_process().name.startswith("LokyProcess"):
        return False
    import torch

    # joblib does not change a number that the user has set, so it differs, unless it is
    # the one that joblib would have set.
    given = {os.environ.get(name) for name in (*_FOLLOWED, *_SET_WITH_THEM)}
    return given == {str(torch.get_num_threads())} and not _is_in_parent_environment()


def _is_in_parent_environment() -> bool:
    """Return whether the user has set a number of threads for the script.

    False if the system does not show the environment of the parent process.
    """
    try:
        with open(f"/proc/{os.getppid()}/environ", "rb") as file:
            names = {entry.partition(b"=")[0] for entry in file.read().split(b"\0")}
    except OSError:
        return False
    return any(name.encode() in names for name in _FOLLOWED)
