"""How many of the processor's cores the network may use."""

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._forks import in_child, released_after_fork

if TYPE_CHECKING:
    import torch

__all__ = ["all_cores", "others_wait"]

# torch and joblib are imported where they are needed: the cache uses this file too,
# and looking into a cache should not take the time that torch needs to start.

# What joblib sets to one number in the environment of its workers, where the user has
# not set it. torch follows the second if it was built with MKL, else the first.
_FOLLOWED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_SET_WITH_THEM = ("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS")

_guard = released_after_fork(threading.Lock())
_n_owners = 0  # how many `others_wait` there are, in all threads
_mine = threading.local()


@in_child
def _forget_owners() -> None:
    global _n_owners
    _n_owners = 0  # those of the parent's threads


@contextlib.contextmanager
def others_wait() -> Iterator[None]:
    """Say, for the body of a ``with``, that other workers wait for this process.

    It is what makes `all_cores` take them: processes that run the network side by side
    keep to their shares.
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
    """Let torch use every core for the body of a ``with``, while the others wait.

    joblib's worker processes are given one share of the cores each: one thread with
    ``n_jobs=-1``. While one of them runs the network and the others wait for its rows
    (`others_wait`), their cores would idle. So it takes all cores that this process may
    use, and gives them back at the end, whatever happens. `LOKY_MAX_CPU_COUNT` and
    the system's affinities and quotas are respected.

    A number that the user has chosen stays: with ``torch.set_num_threads``, or with
    ``OMP_NUM_THREADS`` in the environment that the script was started in. So does that
    of a Dask or Ray worker, whose share is a contract with its scheduler. In all these
    cases, and outside of pools, nothing is done.

    Parameters
    ----------
    device : torch.device
        Where the network runs. On anything but a CPU, nothing is done.

    Notes
    -----
    torch keeps the number for each thread, and a default for threads to come. Only
    that of the calling thread is changed, which must be the one that runs the network:
    threads may come and go here side by side, and none ends with another's number.
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
    # The number has become the default too, so a thread that starts by chance now
    # would keep it forever. The default is what was set last, in whatever thread.
    thread = threading.Thread(target=torch.set_num_threads, args=(default,))
    thread.start()
    thread.join()


def _is_set_by_a_pool() -> bool:
    """Return whether the number of threads is what joblib gave to this worker."""
    if not multiprocessing.current_process().name.startswith("LokyProcess"):
        return False
    import torch

    # joblib leaves alone what the user has set, so a number of his stands out, unless
    # it is the one that joblib would choose.
    given = {os.environ.get(name) for name in (*_FOLLOWED, *_SET_WITH_THEM)}
    return given == {str(torch.get_num_threads())} and not _is_in_the_shell()


def _is_in_the_shell() -> bool:
    """Return whether the script was started with a number of threads.

    Where the system does not show the environment of the parent process: no.
    """
    try:
        with open(f"/proc/{os.getppid()}/environ", "rb") as file:
            names = {entry.partition(b"=")[0] for entry in file.read().split(b"\0")}
    except OSError:
        return False
    return any(name.encode() in names for name in _FOLLOWED)
