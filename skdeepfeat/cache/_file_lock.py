"""Locks between threads and processes, given back by the system after a crash."""

import contextlib
import logging
import multiprocessing
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from filelock import FileLock, Timeout

from .._utils._plain_file import open_plain
from ._faults import StoreUnavailable, translated
from ._place import Place

__all__ = ["hold", "turn_of"]

logger = logging.getLogger(__name__)

# Seconds between two looks at a lock that somebody else holds. Work worth locking
# takes longer, and twenty looks a second do not show in the load.
_POLL = 0.05

# How many pools of processes are told apart. The files of locks stay, so there must
# not be one for every script that ever ran. Two pools that meet in one only take
# turns.
_N_POOLS = 256


def turn_of(place: str) -> str:
    """Return the name of the lock under which a pool's workers compute in turn.

    The workers of one search, and the threads of one process, compute one after the
    other, whatever their networks: two at once would each hold a network and its
    activations in the memory of one device, and each take all cores of one processor,
    only to be done at the same time. Their search is not done before both are.

    Other scripts have turns of their own: waiting hours for somebody else's network
    would be worse than sharing the device with it. They wait only for rows that are
    just being computed.

    Parameters
    ----------
    place : str
        Where the work is done, such as ``"cuda:0"``.
    """
    worker = multiprocessing.current_process().name != "MainProcess"
    pool = os.getppid() if worker else os.getpid()
    return f"turn-{re.sub(r'[^a-z0-9]+', '-', place)}-{pool % _N_POOLS}"


@contextlib.contextmanager
def hold(
    place: Place,
    names: Iterable[str],
    *,
    timeout: float = -1,
    waiting_for: str = "",
) -> Iterator[None]:
    """Hold locks for the body of a ``with``.

    They are file locks of the operating system (``flock``), each through a file
    description of its own, so they hold between the threads of a process as well as
    between processes, and none outlives its owner. All who need several take
    them in the same order, so nobody waits in a circle.

    Parameters
    ----------
    place : Place
        Where their files are; made if need be. The files stay: removing one that
        somebody waits for would give two owners.
    names : iterable of str
    timeout : float, default=-1
        Seconds to wait for each; negative waits forever.
    waiting_for : str, default=""
        Named in the log when there is somebody to wait for.

    Raises
    ------
    StoreUnavailable
        If there can be no lock here, or it was not to be had in time.
    """
    with contextlib.ExitStack() as stack:
        with translated():
            place.make()
        for name in sorted(set(names)):
            path = os.path.join(place.locks, f"{name}.lock")
            stack.enter_context(_acquired(path, place, timeout, waiting_for))
        yield


def _acquired(
    path: str, place: Place, timeout: float, waiting_for: str
) -> AbstractContextManager:
    try:
        with translated():
            # Made here, because older versions of filelock follow links, and do not
            # follow the umask.
            with open_plain(path, "ab", permissions=place.permissions) as file:
                permissions = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            lock = FileLock(path, mode=permissions | 0o600)
            try:
                return lock.acquire(timeout=0)
            except Timeout:
                logger.info("Waiting for another thread or process: %s", waiting_for)
                return lock.acquire(timeout=timeout, poll_interval=_POLL)
    except NotImplementedError as error:
        raise StoreUnavailable("its file system has no locks") from error
