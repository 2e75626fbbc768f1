"""Items through the neck in other processes or on other machines.

The active backend of joblib (loky, threading, dask, ray, or any other) decides where a
shard is computed. A worker receives a part of the source and the neck, and returns
features. It needs no cache.
"""

import functools
import itertools
import logging
import pickle
import socket
import threading
import traceback
import warnings
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import joblib
import numpy as np

from .._utils._device import resolve_device, resolve_devices
from .._utils._digests import digest_bytes
from .._utils._forks import released_after_fork
from .._utils._parameter_errors import first_line
from ._compute import compute_features
from ._settings import count_workers

logger = logging.getLogger(__name__)

# Shards for each worker, so that fast workers take over work from slow ones.
_SHARDS_PER_WORKER = 4

# The maximum, because a lost worker costs a shard.
_BATCHES_PER_SHARD = 4

# Necks that a worker process remembers: as many as the networks it keeps in memory.
_N_KEPT = 2

# Payloads of at least this many bytes are reported to dask with their size, so that it
# sends them to each worker once. Smaller ones are sent with each task, because a
# payload that was sent once is lost with its worker.
_SENT_ONCE = 2**20


def compute_in_shards(source, indices, neck, settings):
    """Yield the features of items as the workers of joblib return them.

    Parameters
    ----------
    source : ItemSource
    indices : ndarray of int
        Which of its items.
    neck : networks.Neck
    settings : ExtractionSettings
        The workers resolve its `device`.

    Yields
    ------
    done, outputs, bad
        As in `compute_features`, one shard at a time, in any order. With
        ``on_error="raise"``, no shard is started after the first broken item.

    Raises
    ------
    Exception
        What the network or its weights raise in a worker, with the worker's traceback
        as a note. If workers die, what is missing is computed again in new workers and,
        if these die too, in this process.
    RuntimeError
        If the workers never returned anything.
    """
    payload = _Payload(neck, remembered=True)
    missing, done, stopped = indices, set(), False
    for _ in range(2):
        try:
            shards = _compute_remotely(source, missing, neck, payload, settings)
            with closing(shards):
                for some, outputs, bad in shards:
                    done.update(some, bad)
                    stopped |= bool(bad) and settings.on_error == "raise"
                    yield some, outputs, bad
            return
        except _WorkersLost as error:
            if stopped:
                return
            loss = error
            missing = missing[~np.isin(missing, list(done))]
            logger.warning(
                "workers of joblib were lost (%s); computing the %d missing images "
                "again",
                loss,
                len(missing),
            )
        if not len(missing):
            return
    if not done:
        raise RuntimeError(
            f"joblib's workers broke down twice and returned nothing ({loss}). They "
            "need skdeepfeat as it is installed here, and memory for the network. "
            "n_jobs=1 computes in this process."
        ) from loss
    logger.warning("workers were lost again; computing the rest in this process")
    devices = resolve_devices(settings.device)
    yield from compute_features(source, missing, neck, devices, settings)


class _WorkersLost(Exception):
    """The backend failed, and not the work."""


def _compute_remotely(source, indices, neck, payload, settings):
    n_jobs, n_workers = settings.n_jobs, count_workers(settings.n_jobs)
    # Compiling has to pay off for the images of each worker.
    n_images = -(-settings.n_images // n_workers)
    settings = replace(settings, verbose=0, n_jobs=1, n_images=n_images)
    size = _shard_size(len(indices), neck, settings, n_workers)
    parts = [indices[i : i + size] for i in range(0, len(indices), size)]
    failure, is_over = None, threading.Event()

    def make_tasks():
        for number, part in enumerate(parts):
            if is_over.is_set():  # tasks that were started still return
                return
            part = _Payload(source.part(part))
            yield joblib.delayed(_compute_shard)(number, payload, part, settings)

    with closing(_run(make_tasks(), n_jobs)) as results:
        for shard in results:
            part = parts[shard.number]
            bad = {
                int(part[i]): _at_index(error, int(part[i]), source, shard.host)
                for i, error in shard.bad.items()
            }
            failure = failure or shard.error
            if failure or (bad and settings.on_error == "raise"):
                is_over.set()
            yield part[shard.done].tolist(), shard.outputs, bad
    if failure is not None:
        raise failure


def _shard_size(n_images, neck, settings, n_workers):
    """Return how many images to send at once: complete batches."""
    batch_size = settings.batch_size
    if batch_size == "auto":
        # Neither the workers' device is known here, as "auto" may be a GPU there, nor
        # their runtime. OpenVINO has the largest batches.
        device = "cpu" if settings.device == "cpu" else resolve_device("auto")
        batch_size = neck.suggested_batch_size(device, "openvino")
    n_batches = -(-n_images // (_SHARDS_PER_WORKER * n_workers * batch_size))
    return batch_size * min(_BATCHES_PER_SHARD, n_batches)


def _at_index(error, index, source, host):
    elsewhere = "" if host == socket.gethostname() else f" (on the worker {host})"
    return type(error)(f"{error.cause}{elsewhere}", index, source.describe(index))


# -- Through joblib


def _run(tasks, n_jobs):
    """Yield the results of tasks as they come from the active backend of joblib."""
    make = functools.partial(
        joblib.Parallel, n_jobs=n_jobs, batch_size=1, pre_dispatch="2*n_jobs"
    )
    try:
        parallel = make(return_as="generator_unordered")
        groups = [tasks]
    except ValueError:
        # Backends based on joblib's multiprocessing backend, such as that of ray.
        parallel = make(return_as="list")
        size = 2 * count_workers(n_jobs)
        groups = iter(lambda: list(itertools.islice(tasks, size)), [])
    with parallel:  # raises if the backend does not start at all
        for group in groups:
            results = _results_or_loss(parallel, group)
            try:
                yield from results
            finally:
                with warnings.catch_warnings():
                    # joblib warns of tasks that are cancelled by stopping early.
                    warnings.filterwarnings("ignore", ".*tasks", UserWarning, "joblib")
                    results.close()


def _results_or_loss(parallel, tasks):
    """Yield results. They include the errors of workers, so any other is a loss."""
    results = None
    try:
        results = iter(parallel(tasks))
        for shard in results:
            if not isinstance(shard, _Shard):
                # The backend of ray returns an exception if a worker died.
                raise _WorkersLost(first_line(shard))
            yield shard
    except _WorkersLost:
        raise
    except pickle.PicklingError as error:
        # loky's cause is the text of a traceback in quotes, whose last line counts.
        cause = str(error.__cause__ or error).strip('"\n ').rpartition("\n")[2]
        raise TypeError(
            f"The network cannot be sent to the workers of joblib ({cause}). Remove "
            "what cannot be pickled from it, such as a lock or an open file (see "
            "__getstate__), or use n_jobs=1, which computes in this process."
        ) from error
    except Exception as error:
        raise _WorkersLost(f"{type(error).__name__}: {first_line(error)}") from error
    finally:
        if hasattr(results, "close"):
            results.close()


class _Payload:
    """An object to send to workers, pickled at most once.

    Parameters
    ----------
    content : object
    remembered : bool, default=False
        Whether a worker process keeps the object, and unpickles it once for all
        payloads with the same content.
    """

    def __init__(self, content, remembered=False):
        self._content = content
        self._remembered = remembered

    def open(self):
        """Return the object. In the process that sent it, it is the same object."""
        return self._content

    @functools.cached_property
    def _packed(self):
        # As an array: if it is large, loky writes it to shared memory once for all
        # tasks and workers. ray does not copy it in the worker.
        content = np.frombuffer(cloudpickle.dumps(self._content), np.uint8)
        return content, digest_bytes(content) if self._remembered else None

    def __reduce__(self):
        return _Received, self._packed

    def __sizeof__(self):
        size = self._packed[0].nbytes
        return size if size >= _SENT_ONCE else 0


_opened: OrderedDict[bytes, Any] = OrderedDict()
_opened_lock = released_after_fork(threading.Lock())


@dataclass
class _Received:
    """A payload where it has arrived, which may be sent on."""

    content: np.ndarray
    key: bytes | None

    def open(self):
        """Return the object."""
        if self.key is None:
            return pickle.loads(self.content)
        with _opened_lock:
            if self.key not in _opened:
                _opened[self.key] = pickle.loads(self.content)
            _opened.move_to_end(self.key)
            while len(_opened) > _N_KEPT:
                _opened.popitem(last=False)
            return _opened[self.key]


# -- What runs in a worker


@dataclass
class _Shard:
    """The result for a part of the images.

    Attributes
    ----------
    number : int
        Which part.
    host : str
        Where it was computed.
    done : list of int
        Positions in the part.
    outputs : list of ndarray of float32, shape (len(done), n_features)
    bad : dict of int to BadItemError
    error : Exception or None
        What stopped the work before its end.
    """

    number: int
    host: str
    done: list
    outputs: list
    bad: dict
    error: Exception | None = None


def _compute_shard(number, neck, part, settings):
    shard, blocks = _Shard(number, socket.gethostname(), [], [], {}), []
    try:
        neck, part = neck.open(), part.open()
        devices = resolve_devices(settings.device)
        computed = compute_features(part, np.arange(len(part)), neck, devices, settings)
        with closing(computed):
            for done, outputs, bad in computed:
                shard.done += done
                shard.bad.update(bad)
                if done:
                    blocks.append(outputs)
    except Exception as error:
        shard.error = _portable(error)
    shard.outputs = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    return shard


def _portable(error):
    """Return the error, or one with the same text if it cannot be pickled."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # the class may be any, with anything in it
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In a worker on {socket.gethostname()}:\n{text}")
    return error
