"""Threads that read, hash and decode, and the memory and objects that they share."""

import contextlib
import queue
import threading
from collections import deque
from concurrent.futures import CancelledError, Future, InvalidStateError

import joblib

from skdeepfeat._utils._forks import released_after_fork

_TASKS_AHEAD = 256
_MAX_HASHING_THREADS = 16

# Bytes. A photo of 12 megapixels takes 84 MB while it is decoded; more cores decode
# more of them at once.
_AT_LEAST = 2**30
_PER_CORE = 2**27

# For objects of the user that threads must not use at the same time.
_LOCKS = tuple(released_after_fork(threading.Lock()) for _ in range(64))


class ThreadPool(contextlib.AbstractContextManager):
    """A pool of daemon threads that can be abandoned.

    `concurrent.futures.ThreadPoolExecutor` waits for running tasks, at the latest when
    the process ends. A decoder or a connection may take minutes and cannot be
    interrupted, so Ctrl-C would take as long.

    Parameters
    ----------
    n_threads : int
    name : str
        Name of the threads.
    """

    def __init__(self, n_threads: int, name: str):
        self._n_threads = n_threads
        self._name = name
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._n_started = 0
        self._unfinished: set[Future] = set()
        self._is_abandoned = False

    def __exit__(self, *error):
        self.abandon()

    def submit(self, function, *args) -> Future:
        """Call a function in a thread; return its future."""
        future: Future = Future()
        with self._lock:
            if self._is_abandoned:
                raise CancelledError
            self._unfinished.add(future)
            if self._n_started < self._n_threads:
                self._n_started += 1
                threading.Thread(
                    target=_work, args=[self._tasks], name=self._name, daemon=True
                ).start()
        future.add_done_callback(self._unfinished.discard)
        self._tasks.put((future, function, args))
        return future

    def map(self, function, items, n_per_task=1):
        """Yield ``function(item)`` for each of a sequence of items, in their order.

        Handing a task to a thread takes as long as hashing a small image, so a task can
        have several items.
        """
        pending: deque[Future] = deque()
        for i in range(0, len(items), n_per_task):
            task = items[i : i + n_per_task]
            pending.append(self.submit(list, map(function, task)))
            if len(pending) >= _TASKS_AHEAD:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()

    def abandon(self):
        """Drop tasks that have not begun; raise CancelledError for those that have."""
        with self._lock:
            self._is_abandoned = True
            unfinished = list(self._unfinished)
        for future in unfinished:
            if not future.cancel():
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(CancelledError())
        for _ in range(self._n_started):
            self._tasks.put(None)


def _work(tasks):
    while (task := tasks.get()) is not None:
        future, function, args = task
        # The future of a running task may be set when the pool is abandoned.
        with contextlib.suppress(InvalidStateError):
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args))
                except BaseException as error:
                    future.set_exception(error)
        del task, future, function, args


def hash_in_threads(function, items, n_per_task=16):
    """Yield ``function(item)`` for each of a sequence of items, in their order."""
    # More threads than cores, because they wait for the disk half of the time.
    n_threads = min(_MAX_HASHING_THREADS, 2 * joblib.cpu_count())
    with ThreadPool(n_threads, "skdeepfeat-hash") as pool:
        yield from pool.map(function, items, n_per_task)


class BeyondBudgetError(CancelledError):
    """More bytes were requested than there are."""


class ByteBudget:
    """A number of bytes that threads take before they use them.

    A thread waits while there are not enough left. A request for more than the total is
    granted when no other thread holds any.

    Parameters
    ----------
    total : int or None, default=None
        In bytes. None: 1 GiB, or 128 MiB for each core, whichever is more.
    is_strict : bool, default=False
        Whether a request for more than the total raises `BeyondBudgetError`.
    """

    def __init__(self, total: int | None = None, is_strict: bool = False):
        self._is_strict = is_strict
        if total is None:
            total = max(_AT_LEAST, _PER_CORE * joblib.cpu_count())
        self.total = total
        self._changed = threading.Condition()
        self._used = 0
        self._n_active = 0  # shares that hold bytes and do not wait for more
        self._waiting: deque[object] = deque()
        self._is_closed = False

    def close(self):
        """Raise CancelledError in all threads that wait, now or later."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Share(contextlib.AbstractContextManager):
    """The bytes that one image takes of a budget, for the body of a ``with``.

    Parameters
    ----------
    budget : ByteBudget or None
        None is a budget without a limit.
    """

    def __init__(self, budget: ByteBudget | None):
        self._budget = budget
        self.n_bytes = 0

    def take(self, n_bytes: int):
        """Reserve bytes; wait until other shares have released enough."""
        budget, ticket = self._budget, object()
        if budget is None or n_bytes <= 0:
            return
        if budget._is_strict and self.n_bytes + n_bytes > budget.total:
            raise BeyondBudgetError

        def is_next():
            fits = budget._used + n_bytes <= budget.total or budget._n_active == 0
            # First come, first served, so that small requests cannot starve a large
            # one.
            return budget._is_closed or (fits and budget._waiting[0] is ticket)

        with budget._changed:
            # A share that waits does not count as active. Otherwise two shares that
            # both hold bytes and need more would wait for each other.
            budget._n_active -= self.n_bytes > 0
            budget._waiting.append(ticket)
            budget._changed.notify_all()
            try:
                budget._changed.wait_for(is_next)
                if budget._is_closed:
                    raise CancelledError
                budget._used += n_bytes
                self.n_bytes += n_bytes
            finally:
                budget._waiting.remove(ticket)
                budget._n_active += self.n_bytes > 0
                budget._changed.notify_all()

    def __exit__(self, *error):
        budget = self._budget
        if self.n_bytes:
            with budget._changed:
                budget._used -= self.n_bytes
                budget._n_active -= 1
                self.n_bytes = 0
                budget._changed.notify_all()


def lock_of(thing):
    """Return the lock of an object, always the same one for the same object.

    X can hold one open file or one PIL image several times.
    """
    return _LOCKS[id(thing) // 64 % len(_LOCKS)]
