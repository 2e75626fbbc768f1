"""Threads that read, hash and decode."""

import contextlib
import queue
import threading
from collections import deque
from concurrent.futures import CancelledError, Future, InvalidStateError

import joblib

_TASKS_AHEAD = 256
_MAX_HASHING_THREADS = 16


class ThreadPool:
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

    def __enter__(self):
        return self

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
            pending.append(self.submit(_call_each, function, task))
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


def _call_each(function, items):
    return [function(item) for item in items]


def hash_in_threads(function, items, n_per_task=16):
    """Yield ``function(item)`` for each of a sequence of items, in their order."""
    # More threads than cores: half of the time they wait for the disk.
    n_threads = min(_MAX_HASHING_THREADS, 2 * joblib.cpu_count())
    with ThreadPool(n_threads, "skdeepfeat-hash") as pool:
        yield from pool.map(function, items, n_per_task)
