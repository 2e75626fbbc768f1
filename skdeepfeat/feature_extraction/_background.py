"""Work that goes on in threads while its results are being used."""

import contextlib
import queue
import threading

__all__ = ["compute_beside", "run_beside"]

# Seconds between two looks at whether somebody still wants a result.
_POLL = 0.1


def compute_beside(items, workers, on_stop=None):
    """Yield what workers make of items, as they finish.

    Each worker runs in a thread of its own and takes the next item when it is done
    with one, so none of them waits for the caller: what the caller does with a result
    happens beside the computing of the next ones.

    Parameters
    ----------
    items : generator
        Advanced by one worker at a time, and closed at the end.
    workers : list of callable
        Each returns a context whose value is ``compute(item) -> result``; it is
        entered and left in the worker's thread. With one worker, results come in the
        order of the items.
    on_stop : callable, default=None
        Called at the end, before the workers are waited for: has `items` end at once,
        whatever it is waiting for.

    Yields
    ------
    object
        A result.

    Raises
    ------
    BaseException
        What `items` or a worker raised; the other threads end with what they have in
        hand.
    """
    # One result may wait for each worker: more would only take memory.
    results = queue.Queue(maxsize=len(workers))
    stopped, turn = threading.Event(), threading.Lock()

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
                    with turn:
                        item = next(items, _END)
                    if item is _END:
                        break
                    put((compute(item), None))
                    del item
        except BaseException as error:  # handed on, whatever it is
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


_END = object()


def run_beside(function):
    """Return what a function returns, called in a thread of its own.

    torch starts threads for whoever calls it, which do not survive in a process that
    the caller forks. Those of a thread that has ended do no harm there.
    """
    worker = contextlib.nullcontext(lambda item: function())
    [result] = compute_beside((None for _ in range(1)), [lambda: worker])
    return result
