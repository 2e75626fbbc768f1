"""Locks for objects of the user that threads must not use at the same time.

X can hold one open file or one PIL image several times.
"""

import threading

from skdeepfeat._utils._forks import released_after_fork

_LOCKS = tuple(released_after_fork(threading.Lock()) for _ in range(64))


def lock_of(thing):
    """Return the lock of an object, always the same one for the same object."""
    return _LOCKS[id(thing) // 64 % len(_LOCKS)]
