"""Images through the neck in other processes or on other machines.

joblib carries them: its active backend (loky, threading, dask, ray, anybody's) decides
where a shard is computed. A worker gets the part of the source that it is to compute
and the neck, and returns rows; it needs no cache.
"""

import functools
import logging
import pickle
import socket
import sys
import threading
import traceback
import warnings
from collections import OrderedDict
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
import joblib
import numpy as np
from joblib.parallel import get_active_backend

from .._utils._device import resolve_device, resolve_devices
from .._utils._digests import digest_bytes
from .._utils._forks import released_after_fork
from ..exceptions import BadImageError
from ._compute import compute_rows

__all__ = ["compute_in_shards", "count_workers"]

logger = logging.getLogger(__name__)

# Shards for each worker, so that fast ones take work from slow ones; and the most
# batches in one, because a shard is what a lost worker costs.
_SHARDS_A_WORKER = 4
_BATCHES_A_SHARD = 4

# Necks that a worker process remembers, as many as networks are kept in memory.
_N_KEPT = 2

# Bytes from which dask places an argument on its workers once, beside the tasks. Less
# travels with each task: what was placed is lost with the worker that held it.
_PLACED_ONCE = 2**20


def count_workers(n_jobs):
    """Return how many workers `n_jobs` means here; 1 is this process alone.

    Parameters
    ----------
    n_jobs : int or None
        As scikit-learn understands it: None is 1 unless `joblib.parallel_config`
        says otherwise, -1 all.

    Returns
    -------
    int
        1 inside of another parallel job, too. joblib would hand out threads there,
        which share the cores of the one worker; and dask's own workers, which may all
        be waiting for the very rows that are to be computed.
    """
    backend, _ = get_active_backend()
    if getattr(backend, "nesting_level", None) or _is_dask_task():
        return 1
    return joblib.effective_n_jobs(n_jobs)


def _is_dask_task():
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    try:
        distributed.get_worker()
    except ValueError:
        return False
    return True


def compute_in_shards(source, indices, neck, settings, n_images=None):
    """Yield the features of images as joblib's workers return them.

    Parameters
    ----------
    source : images.ImageSource
    indices : ndarray of int
        Which of its images.
    neck : networks.Neck
    settings : ExtractionSettings
        Its `device` is looked for on the workers.
    n_images : int, default=None
        How many images the whole job has, where this is a part of it.

    Yields
    ------
    rows, outputs, bad
        As `compute_rows` does, a shard at a time, in any order. With
        ``on_error="raise"``, no more shards are begun after the first broken image.

    Raises
    ------
    Exception
        What the network or its weights raise in a worker, with the worker's traceback
        as a note. A worker that dies raises nothing: what is missing is computed again
        in new workers and, if these die too, in this process.
    RuntimeError
        If workers never returned anything.
    """
    parcel = _Parcel(neck, remembered=True)
    n_images = len(indices) if n_images is None else n_images
    missing, done, stopped = indices, set(), False
    for _ in range(2):
        try:
            shards = _compute_remotely(
                source, missing, neck, parcel, settings, n_images
            )
            with closing(shards):
                for rows, outputs, bad in shards:
                    done.update(rows, bad)
                    stopped |= bool(bad) and settings.on_error == "raise"
                    yield rows, outputs, bad
            return
        except _WorkersLost as error:
            if stopped:
                return
            loss = error
            missing = missing[~np.isin(missing, list(done))]
            logger.warning(
                "workers of joblib were lost (%s); the %d images that are still "
                "missing are computed again",
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
    logger.warning("workers were lost again: the rest is computed in this process")
    devices = resolve_devices(settings.device)
    yield from compute_rows(source, missing, neck, devices, settings, n_images)


class _WorkersLost(Exception):
    """Not what the work raised: what carried it broke down."""


def _compute_remotely(source, indices, neck, parcel, settings, n_images):
    n_jobs, settings = settings.n_jobs, replace(settings, verbose=0, n_jobs=1)
    n_workers = count_workers(n_jobs)
    size = _shard_size(len(indices), neck, settings, n_workers)
    n_images = -(-n_images // n_workers)
    parts = [indices[i : i + size] for i in range(0, len(indices), size)]
    failure, is_over = None, threading.Event()

    def make_tasks():
        for number, rows in enumerate(parts):
            if is_over.is_set():  # what is under way then comes back all the same
                return
            part = _Parcel(source.part(rows))
            yield joblib.delayed(_compute_shard)(
                number, parcel, part, settings, n_images
            )

    with closing(_run(make_tasks(), n_jobs)) as results:
        for shard in results:
            rows = parts[shard.number]
            bad = {
                int(rows[i]): _placed(error, int(rows[i]), source, shard.host)
                for i, error in shard.bad.items()
            }
            failure = failure or shard.error
            if failure or (bad and settings.on_error == "raise"):
                is_over.set()
            yield rows[shard.rows].tolist(), shard.outputs, bad
    if failure is not None:
        raise failure


def _shard_size(n_images, neck, settings, n_workers):
    """Return how many images to send at once: whole batches."""
    batch_size = settings.batch_size
    if batch_size == "auto":
        # The workers' device is not known here; "auto" may be a GPU there.
        kind = "cpu" if settings.device == "cpu" else resolve_device("auto")
        # Nor is the runtime: the one that likes the larger batches.
        batch_size = neck.suggested_batch_size(kind, "openvino")
    n_batches = -(-n_images // (_SHARDS_A_WORKER * n_workers * batch_size))
    return batch_size * min(_BATCHES_A_SHARD, n_batches)


def _placed(error, row, source, host):
    elsewhere = "" if host == socket.gethostname() else f" (on the worker {host})"
    return BadImageError(f"{error.cause}{elsewhere}", row, source.describe(row))


# -- Carrying


def _run(tasks, n_jobs):
    """Yield the results of tasks as they come, from joblib's active backend."""
    make = functools.partial(
        joblib.Parallel, n_jobs=n_jobs, batch_size=1, pre_dispatch="2*n_jobs"
    )
    try:
        parallel = make(return_as="generator_unordered")
        groups = [tasks]
    except ValueError:
        # Of joblib's own backends, those made after multiprocessing, which ray's is.
        parallel = make(return_as="list")
        groups = _grouped(tasks, 2 * count_workers(n_jobs))
    with parallel:  # a backend that does not start at all says why, and that is raised
        for group in groups:
            results = _translated(parallel, group)
            with _closing_quietly(results):
                yield from results


def _grouped(tasks, size):
    group = []
    for task in tasks:
        group.append(task)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _translated(parallel, tasks):
    """Yield results; a worker's own errors are among them, so any other is a loss."""
    results = None
    try:
        results = iter(parallel(tasks))
        for shard in results:
            if not isinstance(shard, _Shard):
                # Ray's backend returns the exception that tells of a dead worker.
                raise _WorkersLost(_first_line(shard))
            yield shard
    except _WorkersLost:
        raise
    except Exception as error:
        raise _WorkersLost(f"{type(error).__name__}: {_first_line(error)}") from error
    finally:
        if hasattr(results, "close"):
            results.close()


@contextmanager
def _closing_quietly(results):
    try:
        yield
    finally:
        with warnings.catch_warnings():
            # joblib tells whoever stops early that work is cancelled: it is meant.
            warnings.filterwarnings("ignore", ".*tasks", UserWarning, "joblib")
            results.close()


def _first_line(error):
    return str(error).strip().partition("\n")[0][:200]


class _Parcel:
    """An object on its way to workers, pickled once and only if it has to be.

    Parameters
    ----------
    content : object
    remembered : bool, default=False
        Whether a worker process keeps it, and unpickles it once for all parcels of the
        same content.
    """

    def __init__(self, content, remembered=False):
        self._content = content
        self._is_packed = False
        self._key = None
        self._remembered = remembered

    def open(self):
        """Return the object; in the process that packed it, the very same."""
        if not self._is_packed:
            return self._content
        if self._key is None:
            return pickle.loads(self._content)
        with _opened_lock:
            if self._key not in _opened:
                _opened[self._key] = pickle.loads(self._content)
            _opened.move_to_end(self._key)
            while len(_opened) > _N_KEPT:
                _opened.popitem(last=False)
            return _opened[self._key]

    @functools.cached_property
    def _packed(self):
        # As an array, which loky writes to shared memory once, if it is large, for all
        # tasks and workers, and which ray does not copy in the worker.
        if self._is_packed:
            return self._content, self._key
        content = np.frombuffer(cloudpickle.dumps(self._content), np.uint8)
        return content, digest_bytes(content) if self._remembered else None

    def __reduce__(self):
        return _received, self._packed

    def __sizeof__(self):
        size = self._packed[0].nbytes
        return size if size >= _PLACED_ONCE else 0


_opened: OrderedDict[bytes, Any] = OrderedDict()
_opened_lock = released_after_fork(threading.Lock())


def _received(content, key):
    parcel = _Parcel(content)
    parcel._is_packed, parcel._key = True, key
    return parcel


# -- What runs in a worker


@dataclass
class _Shard:
    """What became of a part of the images.

    Attributes
    ----------
    number : int
        Which part.
    host : str
        Where it was computed.
    rows : list of int
        Positions in the part.
    outputs : list of ndarray of float32, shape (len(rows), n_features)
    bad : dict of int to BadImageError
    error : Exception or None
        What stopped the work before its end.
    """

    number: int
    host: str
    rows: list
    outputs: list
    bad: dict
    error: Exception | None = None


def _compute_shard(number, neck, part, settings, n_images):
    shard, blocks = _Shard(number, socket.gethostname(), [], [], {}), []
    try:
        neck, part = neck.open(), part.open()
        computed = compute_rows(
            part,
            np.arange(len(part)),
            neck,
            resolve_devices(settings.device),
            settings,
            # What pays for the whole job, such as compiling, is worth its time here.
            n_images,
        )
        with closing(computed):
            for rows, outputs, bad in computed:
                shard.rows += rows
                shard.bad.update(bad)
                if rows:
                    blocks.append(outputs)
    except Exception as error:
        shard.error = _portable(error)
    shard.outputs = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
    return shard


def _portable(error):
    """Return the error, or if it cannot travel one that says the same."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # anybody's class, with anything in it
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In a worker on {socket.gethostname()}:\n{text}")
    return error
