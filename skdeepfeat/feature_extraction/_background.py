"""Work in threads of its own, whose results are used meanwhile."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor

# Seconds between two checks whether the caller still wants a result.
_POLL = 0.1

_END = object()


def compute_in_background(items, workers, on_stop=None):
    """Yield the results that workers compute from items, as they finish.

    Each worker runs in a thread of its own and takes the next item when it is done with
    one. So no worker waits for the caller, which uses a result while the next ones are
    computed.

    Parameters
    ----------
    items : generator
        Advanced by one worker at a time, and closed at the end.
    workers : list of callable
        Each returns a context manager for ``compute(item) -> result``. It is entered
        and left in the worker's thread. With one worker, results come in the order of
        the items.
    on_stop : callable, default=None
        Called at the end, before the workers are joined. It makes `items` end at once,
        whatever it is waiting for.

    Yields
    ------
    object
        A result.

    Raises
    ------
    BaseException
        What `items` or a worker raised. The other threads finish their current item.
    """
    # One result may wait for each worker: more would only take memory.
    results = queue.Queue(maxsize=len(workers))
    stopped, next_item = threading.Event(), threading.Lock()

    def put(result):
        while not stopped.is_set():
            try:
                return results.put(result, timeout=_POLL)
            except queue.Full:
                continue

    def work(worker):
        try:
            with worker() as compute:
                while not stopped.is_set():
                    with next_item:
                        item = next(items, _END)
                    if item is _END:
                        break
                    put((compute(item), None))
                    del item
        except BaseException as error:  # raised in the caller's thread
            put((None, error))
        else:
            put(_END)

    threads = [
        threading.Thread(target=work, args=[worker], name="skdeepfeat-compute")
        for worker in workers
    ]
    try:
        for thread in threads:
            thread.start()
        n_running = len(threads)
        while n_running:
            found = results.get()
            if found is _END:
                n_running -= 1
                continue
            result, error = found
            if error is not None:
                raise error
            yield result
    finally:
        stopped.set()
        if on_stop is not None:
            on_stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        items.close()


def run_in_thread(function):
    """Return ``function()``, called in a new thread.

    torch starts threads for each thread that computes, and a process forked from that
    thread lacks them. Those of a thread that has ended do no harm in a forked process.
    """
    with ThreadPoolExecutor(1, "skdeepfeat-compute") as pool:
        return pool.submit(function).result()
