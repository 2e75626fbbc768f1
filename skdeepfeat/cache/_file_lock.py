"""Locks between threads and processes, released by the system after a crash."""

import contextlib
import logging
import multiprocessing
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from .._utils._plain_file import lock_plain
from .._utils._threads import others_wait
from ._directory import CacheDirectory
from ._errors import StoreUnavailable, translated

logger = logging.getLogger(__name__)

_WAITING = "Waiting for another thread or process: %s"

# Number of different locks for pools of processes. Lock files are never removed, so
# their number must be limited. Two pools that share a lock compute one after the other.
_N_POOLS = 256


def hold_device_lock(
    directory: CacheDirectory, place: str, names: Iterable[str], label: str
) -> AbstractContextManager:
    """Return a context in which one worker computes and the others wait.

    The workers of one search, and the threads of one process, compute one after the
    other, whatever their networks. Two at once would each hold a network and its
    activations in the memory of one device, and would not be done any sooner.

    Other scripts have locks of their own: waiting hours for another script's network
    would be worse than sharing the device with it. They wait only for rows that are
    being computed at the moment.

    Parameters
    ----------
    directory : CacheDirectory
    place : str
        Where the work is done, such as ``"cuda:0"``.
    names : iterable of str
        Further locks, of what other scripts must not compute at the same time.
    label : str
        What is computed, for the log.

    Raises
    ------
    StoreUnavailable
        If there can be no lock here.
    """
    is_worker = multiprocessing.current_process().name != "MainProcess"
    pool = os.getppid() if is_worker else os.getpid()
    device = f"device-{re.sub(r'[^a-z0-9]+', '-', place)}-{pool % _N_POOLS}"
    with contextlib.ExitStack() as stack:
        # The device first: while a pool waits for it, other scripts can still run the
        # network.
        stack.enter_context(hold(directory, [device], waiting_for=label))
        stack.enter_context(hold(directory, names, waiting_for=label))
        stack.enter_context(others_wait())
        return stack.pop_all()


@contextlib.contextmanager
def hold(
    directory: CacheDirectory,
    names: Iterable[str],
    *,
    timeout: float = -1,
    waiting_for: str = "",
) -> Iterator[None]:
    """Hold locks for the body of a ``with``.

    They are file locks of the operating system (``flock``), each through a file
    description of its own, so they work between the threads of a process as well as
    between processes, and none outlives its owner. Everybody who needs several takes
    them in the same order, so there are no deadlocks.

    Parameters
    ----------
    directory : CacheDirectory
        Made if it does not exist. The lock files stay: if one were removed while
        another process waits for it, it would have two owners.
    names : iterable of str
    timeout : float, default=-1
        Seconds to wait for each; negative waits forever.
    waiting_for : str, default=""
        Named in the log if another thread or process holds a lock.

    Raises
    ------
    StoreUnavailable
        If there can be no lock here, or the time is over.
    """
    with contextlib.ExitStack() as stack:
        with translated():
            directory.make(directory.locks)
        for name in sorted(set(names)):
            try:
                with translated():
                    lock = lock_plain(
                        os.path.join(directory.locks, f"{name}.lock"),
                        lambda: logger.info(_WAITING, waiting_for),
                        permissions=directory.permissions,
                        timeout=timeout,
                    )
            except NotImplementedError as error:
                raise StoreUnavailable("its file system has no locks") from error
            stack.enter_context(lock)
        yield
