"""Items through the neck in this process.

Threads read and decode the next batches while the network computes one, and the caller
stores the features of a batch while the network computes the next one.
"""

import contextlib
import functools
import math
import queue
import threading
from collections import deque

import joblib
import numpy as np

from .._utils._threads import all_cores
from ..exceptions import BadItemError
from ..images import (
    N_AT_ONCE,
    ByteBudget,
    DecodingProcesses,
    ThreadPool,
    can_decode_in_processes,
)
from ._settings import check_device_type

# Threads for each device. While one waits for the result of a GPU, the other has queued
# the next batch there. On a CPU, two threads would compete for the cores.
_THREADS_PER_DEVICE = {"cuda": 2}

# How many batches the decoding threads may be ahead of one network: one waits while
# another is being filled. More only costs memory.
_BATCHES_AHEAD = 2

# Seconds between two checks of whether the caller still needs results.
_POLL = 0.1

_END = object()


def compute_features(source, indices, neck, devices, settings):
    """Yield the features of items as they are computed.

    Parameters
    ----------
    source : ItemSource
    indices : ndarray of int
        Which of its items.
    neck : networks.Neck
    devices : list of torch.device
        Each takes the next batch when it is done with one.
    settings : ExtractionSettings

    Yields
    ------
    done : list of int
        Some of `indices`.
    outputs : list of ndarray of float32, shape (len(done), n_features of the output)
        One for each of the neck's outputs.
    bad : dict of int to BadItemError
        The items among `indices` found meanwhile that cannot be read. With
        ``on_error="raise"``, no batch is started after the first.
    """
    check_device_type(devices, settings)
    batch_size = settings.batch_size
    if batch_size == "auto":
        batch_size = min(
            neck.suggested_batch_size(
                device,
                neck.chosen_runtime(
                    device, settings.precision, settings.runtime, settings.n_images
                ),
            )
            for device in devices
        )
    # Batches that are being computed when a broken image is found are still yielded,
    # because they are worth storing.
    found_bad = threading.Event() if settings.on_error == "raise" else None
    workers = [
        functools.partial(_worker, source, neck, device, settings, found_bad)
        for device in devices
        for _ in range(_THREADS_PER_DEVICE.get(device.type, 1))
    ]
    with load_ahead(
        source,
        indices,
        neck.preprocessing,
        devices,
        batch_size,
        bytes_of_item=neck.bytes_of_item,
        n_consumers=len(workers),
        found_bad=found_bad,
    ) as (loaded, stop):
        # Ctrl-C waits for the network's current batch, but not for items.
        computed = compute_in_background(loaded, workers, on_stop=stop)
        with contextlib.closing(computed):
            yield from computed


@contextlib.contextmanager
def _worker(source, neck, device, settings, found_bad):
    """Lend the network in the form of ``compute(loaded batch) -> features``."""
    loaded = neck.loaded(
        device,
        settings.precision,
        settings.runtime,
        settings.n_images,
        settings.converted,
    )
    with all_cores(device), loaded as run:

        def compute(batch):
            indices, items, bad = batch
            if indices:
                items, failures = neck.batched(items)
                for n, error in failures.items():
                    i = indices[n]
                    bad[i] = error.at(i, source.describe(i))
                indices = [i for n, i in enumerate(indices) if n not in failures]
                if failures and found_bad:
                    found_bad.set()
            return indices, run(items) if indices else [], bad

        yield compute


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


def decode_ahead(source, preprocessing, batch_size, devices=()):
    """Yield (indices, images, failures) of each batch while decoding the next ones.

    Parameters
    ----------
    source : images.ImageSource
    preprocessing : Preprocessing
        Its geometry is applied.
    batch_size : int
    devices : sequence of torch.device, default=()
        What the images are for.
    """
    with load_ahead(
        source,
        np.arange(len(source)),
        preprocessing,
        devices,
        batch_size,
        bytes_of_item=3 * math.prod(preprocessing.crop),
    ) as (batches, _):
        yield from batches


@contextlib.contextmanager
def load_ahead(
    source,
    indices,
    preprocessing,
    devices,
    batch_size,
    *,
    bytes_of_item,
    n_consumers=1,
    found_bad=None,
):
    """Load batches while the caller uses earlier ones, for the body of a ``with``.

    Memory use is bounded in items and in bytes (`ByteBudget`), so it does not grow with
    X.

    Parameters
    ----------
    source : ItemSource
    indices : ndarray of int
        Which of its items.
    preprocessing : Preprocessing
    devices : sequence of torch.device
        What the items are for.
    batch_size : int
    bytes_of_item : int
        The size of an item that is loaded.
    n_consumers : int, default=1
        How many threads take batches.
    found_bad : threading.Event or None, default=None
        If given, the first batch with an item that cannot be read sets it, and no batch
        is started once it is set.

    Yields
    ------
    batches : generator of (indices, items, failures)
    stop : callable
        After it was called, the next batch raises a CancelledError.
    """

    def load(indices, budget):
        results = []
        for i in indices:
            try:
                results.append(source.fitted(i, preprocessing, budget))
            except BadItemError as error:
                results.append(error)
        return results

    n_per_task, kinds = source.n_per_task, {device.type for device in devices}
    with contextlib.ExitStack() as stack:
        if can_decode_in_processes(source, kinds, len(indices)):
            processes = DecodingProcesses(source, preprocessing)
            load = stack.enter_context(processes).load
            n_per_task = N_AT_ONCE
        # Threads are enough for a CPU, as decoders release the GIL. Entered last, so
        # that the threads are told first that nobody waits any longer.
        pool = ThreadPool(joblib.cpu_count(), "skdeepfeat-decode")
        stack.enter_context(pool)
        budget = ByteBudget()
        n_ahead = (_BATCHES_AHEAD + n_consumers - 1) * batch_size
        n_ahead += n_per_task * joblib.cpu_count()
        n_ahead = min(n_ahead, budget.total // bytes_of_item + 1)
        starts = range(0, len(indices), n_per_task)
        tasks = (indices[start : start + n_per_task].tolist() for start in starts)
        loading = ((some, pool.submit(load, some, budget)) for some in tasks)
        batches = _batches(loading, n_ahead, batch_size, found_bad)
        stack.callback(budget.close)
        yield stack.enter_context(contextlib.closing(batches)), pool.abandon


def _batches(loading, n_ahead, batch_size, found_bad):
    """Yield batches of what is being loaded; see `load_ahead`.

    Parameters
    ----------
    loading : iterator of (list of int, Future)
        Starts to load some items, and returns their indices and the future list of
        items and `BadItemError`.
    n_ahead : int
        How many items may be on their way.
    batch_size : int
    found_bad : threading.Event or None
    """
    pending, n_pending, loaded = deque(), 0, deque()

    def top_up():
        nonlocal n_pending
        while n_pending < n_ahead and (task := next(loading, None)):
            n_pending += len(task[0])
            pending.append(task)

    try:
        top_up()
        while (pending or loaded) and not (found_bad and found_bad.is_set()):
            done, items, bad = [], [], {}
            while (pending or loaded) and len(done) < batch_size:
                if not loaded:
                    some, future = pending.popleft()
                    loaded.extend(zip(some, future.result(), strict=True))
                index, item = loaded.popleft()
                if isinstance(item, BadItemError):
                    bad[index] = item
                else:
                    items.append(item)
                    done.append(index)
                n_pending -= 1
                top_up()
            if bad and found_bad:
                found_bad.set()
            yield done, items, bad
    finally:
        for _, future in pending:
            future.cancel()
