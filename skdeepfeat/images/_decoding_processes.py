"""Processes that decode files for a GPU.

Pillow's decoders release the GIL, but the code around them holds it. So many threads
decode hardly faster than a few. This is enough for a network on a CPU, which needs the
cores itself, but not for a GPU (benchmarks/README.md).
"""

import contextlib
import logging
import math
import mmap
import multiprocessing
import pickle
import queue
import signal
import sys
import warnings
from concurrent.futures import CancelledError

import joblib
import numpy as np

from skdeepfeat.exceptions import BadImageError

from ._thread_pool import BeyondBudgetError, ByteBudget

logger = logging.getLogger(__name__)

# Images that a process decodes at a time: enough that sending them takes little time.
N_AT_ONCE = 8

# Starting takes the time of some hundred images, and fewer cores gain nothing.
_MIN_IMAGES = 512
_MIN_CORES = 4


def can_decode_in_processes(source, device_types, n_images):
    """Return whether to start processes.

    Parameters
    ----------
    source : ItemSource
    device_types : set of str
        Where the network runs.
    n_images : int
    """
    return (
        device_types == {"cuda"}
        and n_images >= _MIN_IMAGES
        and joblib.cpu_count() >= _MIN_CORES
        and getattr(source, "suits_processes", False)
        # Elsewhere, forks may crash; a daemon must not start processes.
        and sys.platform == "linux"
        and not multiprocessing.current_process().daemon
    )


class DecodingProcesses(contextlib.AbstractContextManager):
    """Forked processes that read, check, decode, resize and crop images.

    A new interpreter would import torch for seconds, and run a script without a main
    guard again.

    Parameters
    ----------
    source : ImageSource
    preprocessing : Preprocessing
        Its geometry is applied.
    """

    def __init__(self, source, preprocessing):
        self._source = source
        self._preprocessing = preprocessing
        self._idle: queue.LifoQueue = queue.LifoQueue()
        self._children: list[_Child] = []
        self._is_closed = False

    def __enter__(self):
        try:
            with warnings.catch_warnings():
                # Python 3.12 warns. `_utils._forks` handles locks and thread pools.
                warnings.filterwarnings(
                    "ignore", ".* is multi-threaded", DeprecationWarning
                )
                for _ in range(joblib.cpu_count()):
                    child = _Child(self._preprocessing, self._children)
                    self._children.append(child)
                    self._idle.put(child)
        except OSError as error:  # a limit on processes or memory
            logger.warning("fewer processes than cores decode images: %s", error)
        return self

    def __exit__(self, *error):
        self._is_closed = True
        for child in self._children:
            child.end()

    def load(self, indices, budget):
        """Return for each image its pixels, or the BadImageError that says why not.

        Called by as many threads as there are processes.

        Parameters
        ----------
        indices : list of int, at most `N_AT_ONCE`
        budget : ByteBudget
            Of this process, for images that are too large for the others.
        """
        part = self._source.part(np.array(indices))
        results = self._load_elsewhere(part)
        for k, i in enumerate(indices):
            if results[k] is None:
                try:
                    results[k] = part.fitted(k, self._preprocessing, budget)
                except BadImageError as error:
                    results[k] = error
            if isinstance(results[k], BadImageError):
                results[k] = results[k].at(i, self._source.describe(i))
        return results

    def _load_elsewhere(self, part):
        """Return pixels and errors, None for images to be loaded in this process."""
        try:
            child = self._idle.get_nowait()
        except queue.Empty:
            return [None] * len(part)
        try:
            results = child.load(part)
        except _NOT_SENT as error:
            logger.info("images are decoded in this process: %s", error)
            results = [None] * len(part)
        except (EOFError, OSError) as error:
            if self._is_closed:
                raise CancelledError from None
            logger.warning(
                "a process that decodes images was lost; the others continue (%s)",
                type(error).__name__,
            )
            return [None] * len(part)
        self._idle.put(child)
        return results


# What pickle raises for objects that it cannot send.
_NOT_SENT = (pickle.PicklingError, TypeError, AttributeError)


class _Child:
    """One process, and the memory in which it leaves pixels."""

    def __init__(self, preprocessing, others):
        shape = (N_AT_ONCE, *preprocessing.crop, 3)
        # Anonymous, because /dev/shm is small in containers.
        self._pixels = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8)
        self._pixels = self._pixels.reshape(shape)
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        # A process that held the connections of others would keep them alive when this
        # one is killed.
        inherited = [self._connection, *(one._connection for one in others)]
        self._process = context.Process(
            target=_decode_until_closed,
            args=[theirs, inherited, self._pixels, preprocessing],
            name="skdeepfeat-decode",
            daemon=True,
        )
        self._process.start()
        theirs.close()

    def load(self, part):
        """Return pixels, errors and None; see `DecodingProcesses`."""
        self._connection.send(part)
        results = self._connection.recv()
        if isinstance(results, BaseException):
            raise results
        return [
            np.array(self._pixels[k]) if one is True else one
            for k, one in enumerate(results)
        ]

    def end(self):
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join()
        self._connection.close()


def _decode_until_closed(connection, inherited, pixels, preprocessing):
    """Decode the parts that arrive; the main function of a process."""
    # Ctrl-C is handled by the process that waits for the images.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for one in inherited:
        one.close()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    budget = ByteBudget(ByteBudget().total // joblib.cpu_count(), is_strict=True)
    while True:
        try:
            part = connection.recv()
        except (EOFError, OSError):
            return
        results = []
        try:
            for k in range(len(part)):
                results.append(_decode(part, k, pixels, preprocessing, budget))
        except Exception as error:
            results = error
        connection.send(results)


def _decode(part, k, pixels, preprocessing, budget):
    try:
        pixels[k] = part.fitted(k, preprocessing, budget)
    except BadImageError as error:
        return error
    except BeyondBudgetError:
        return None
    return True
