"""Threads that read, hash and decode."""

import contextlib
import queue
import threading
from concurrent.futures import CancelledError, Future, InvalidStateError

import joblib

__all__ = ["ThreadPool", "resolve_threads"]


def resolve_threads(n_threads: int | None) -> int:
    """Return the number of threads; None means as many as help.

    More than there are cores, because they wait for the disk half of the time.
    """
    if n_threads is None:
        return min(16, 2 * joblib.cpu_count())
    return max(1, int(n_threads))


class ThreadPool:
    """A pool of threads that nobody has to wait for.

    `concurrent.futures` waits for what runs, at the latest when the process ends. A
    decoder or a connection may take minutes and cannot be interrupted, so Ctrl-C would
    take as long.

    Parameters
    ----------
    n_threads : int
    name : str
        Of the threads.
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
        """Have a function called in a thread; return its future."""
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
        future.add_done_callback(self._forget)
        self._tasks.put((future, function, args))
        return future

    def map(self, function, items):
        """Yield the results for some items, in their order."""
        futures = [self.submit(function, item) for item in items]
        futures.reverse()
        while futures:
            yield futures.pop().result()

    def abandon(self):
        """Drop what waits; who waits for what runs gets a CancelledError at once."""
        with self._lock:
            self._is_abandoned = True
            unfinished = list(self._unfinished)
        for future in unfinished:
            if not future.cancel():
                with contextlib.suppress(InvalidStateError):
                    future.set_exception(CancelledError())
        for _ in range(self._n_started):
            self._tasks.put(None)

    def _forget(self, future):
        with self._lock:
            self._unfinished.discard(future)


def _work(tasks):
    while (task := tasks.get()) is not None:
        future, function, args = task
        if future.set_running_or_notify_cancel():
            # It may have been abandoned meanwhile.
            with contextlib.suppress(InvalidStateError):
                try:
                    result = function(*args)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
        del task, future, function, args
