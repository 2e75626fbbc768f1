"""Support for forks: estimators work in a forked child, whatever its parent was doing.

A fork copies one thread. Thread pools such as OpenMP's do not notice that their threads
no longer exist, and wait for them forever when the thread that has used them computes
again. Locks that other threads held stay locked. SQLite must not use a connection that
the parent opened. Therefore

* `call_after_fork` runs public functions in a new thread, which gets its own pools, if
  they are called in the only thread that a fork has copied;
* `released_after_fork` releases a lock in the child;
* `undisturbed_by_forks` makes a fork wait for work of another thread, so that no native
  library is copied while it holds an internal lock.
"""

import contextlib
import contextvars
import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable

# Not on Windows.
_HAS_FORKS = hasattr(os, "register_at_fork")

# Seconds that a fork waits for the work of other threads. A batch or a step takes less.
# Without a limit, a fork could wait forever for work that waits for the forking thread.
_FORK_TIMEOUT = 30.0

# In a child process, the thread that the fork has copied.
_forked_thread = None

# Seconds that new work waits for a fork that waits for other work, so that the fork
# gets a chance. Then it begins, because the other work may depend on it.
_WORK_TIMEOUT = 1.0

# How many `undisturbed_by_forks` each thread is in, and how many forks are waiting.
_depth_of: dict[int, int] = {}
_n_waiting = 0
_changed = threading.Condition()

_before: list[Callable] = []
_in_child: list[Callable] = []


# -- Public functions


def call_after_fork(function, /, *args, **kwargs):
    """Call a function so that it works in the thread that a fork has copied, too.

    There it runs in a new thread, for which the caller waits. In all other threads it
    is called directly.
    """
    if threading.get_ident() != _forked_thread:
        return function(*args, **kwargs)
    return _call_in_thread(functools.partial(function, *args, **kwargs))


def _call_in_thread(call):
    outcome, is_done = [], threading.Event()
    with_settings = _carried_settings()

    def work():
        try:
            with with_settings():
                outcome.append((call(), None))
        except BaseException as error:  # raised in the calling thread
            outcome.append((None, error))
        finally:
            is_done.set()

    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run, args=[work], name="skdeepfeat-after-fork"
    )
    thread.start()
    while not is_done.is_set():
        try:
            is_done.wait()
        except BaseException as error:  # Ctrl-C, or what another signal raises
            _raise_in(thread, type(error))
    thread.join()
    result, raised = outcome[0]
    if raised is not None:
        raise raised
    return result


def _carried_settings():
    """Return a context with the settings of this thread, to be used in another one."""
    import joblib
    import sklearn

    config = sklearn.get_config()
    # joblib has no function that returns what `parallel_config` has set.
    kept = getattr(joblib.parallel, "_backend", None)
    backend = getattr(kept, "config", None)

    @contextlib.contextmanager
    def carried():
        if backend is not None:
            kept.config = backend
        with sklearn.config_context(**config):
            yield

    return carried


def _raise_in(thread, kind):
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(kind)
    )


# -- Before and after a fork


def released_after_fork(lock):
    """Return a lock that is released in a forked child.

    Parameters
    ----------
    lock : threading.Lock, threading.RLock or threading.Condition
    """
    if _HAS_FORKS:  # elsewhere locks lack the method
        in_child(lock._at_fork_reinit)
    return lock


def in_child(function):
    """Call a function in each forked child, before anything else."""
    _in_child.append(function)
    return function


def before_fork(function):
    """Call a function before each fork. It must not wait for other threads.

    No other thread enters `undisturbed_by_forks` until the fork is done. A thread may
    still be inside if its work takes longer than a fork waits.
    """
    _before.append(function)
    return function


@contextlib.contextmanager
def undisturbed_by_forks():
    """Let forks by other threads wait for the end of the body of a ``with``.

    The body should take seconds, not minutes.
    """
    me = threading.get_ident()
    with _changed:
        if _n_waiting and me not in _depth_of:
            _changed.wait_for(lambda: not _n_waiting, timeout=_WORK_TIMEOUT)
        _depth_of[me] = _depth_of.get(me, 0) + 1
    try:
        yield
    finally:
        with _changed:
            _depth_of[me] -= 1
            if not _depth_of[me]:
                del _depth_of[me]
                _changed.notify_all()


def _prepare():
    global _n_waiting
    # Held until the fork is done, so that no thread begins work meanwhile.
    _changed.acquire()
    _n_waiting += 1
    me = threading.get_ident()
    _changed.wait_for(lambda: not _depth_of.keys() - {me}, timeout=_FORK_TIMEOUT)
    for function in _before:
        function()


def _resume():
    global _n_waiting
    _n_waiting -= 1
    _changed.notify_all()
    _changed.release()


def _reset_in_child():
    global _changed, _forked_thread, _n_waiting
    _forked_thread = me = threading.get_ident()
    _changed, _n_waiting = threading.Condition(), 0
    for other in _depth_of.keys() - {me}:
        del _depth_of[other]
    _release_lock_of_tqdm()
    for function in _in_child:
        function()


def _release_lock_of_tqdm():
    """Release the lock that all progress bars share, if another thread held it."""
    if "tqdm.std" not in sys.modules:
        return
    lock = sys.modules["tqdm.std"].TqdmDefaultWriteLock.th_lock
    if lock.acquire(blocking=False):
        lock.release()
    else:
        lock._at_fork_reinit()


if _HAS_FORKS:
    os.register_at_fork(
        before=_prepare, after_in_parent=_resume, after_in_child=_reset_in_child
    )
