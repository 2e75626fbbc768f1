"""Batches for the model. While an accelerator computes, a thread prepares the next."""

import contextlib
import functools
import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .._utils._forks import undisturbed_by_forks
from ._gradients import draw_mixing

# Devices without spare cores for a thread that prepares batches.
_LOADING_IN_PLACE = ("cpu",)

# How many batches this thread may prepare in advance.
_BATCHES_AHEAD = 3


class BatchLoader:
    """Prepares this process's part of each batch.

    Parameters
    ----------
    processes : Processes
    device : torch.device
    mixup : float
        See `LoopSettings`.
    """

    def __init__(self, processes, device, mixup):
        self._processes = processes
        self._device = device
        self._mixup = mixup

    @contextlib.contextmanager
    def batches(self, data, parts, stream):
        """Provide an iterator over batches, in the body of a ``with``.

        A batch is the arguments of `BatchGradients.compute` without the last.

        Parameters
        ----------
        data : FeatureData or PixelData
        parts : iterable of (ndarray of int, numpy.random.Generator)
            The rows of each batch, and the generator that the batch draws from.
        stream : RandomStream
            The random numbers of the user's transforms.
        """
        load = functools.partial(self._load, data, stream)
        is_here = self._device.type in _LOADING_IN_PLACE
        if is_here or not getattr(data, "suits_threads", False):
            yield itertools.starmap(load, parts)
            return
        # One thread, because the batches draw from their generator one after the other.
        with ThreadPoolExecutor(1, "skdeepfeat-batches") as pool:
            load = functools.partial(load, in_thread=True)
            batches = _mapped_ahead(pool, load, parts)
            with contextlib.closing(batches):
                yield batches

    @undisturbed_by_forks()
    def _load(self, data, stream, rows, rng, in_thread=False):
        positions = np.arange(len(rows))[self._processes.part(len(rows))]
        mine = rows[positions]
        # Transforms draw from torch's generators. A process without rows calls this as
        # well, because `rng` must draw the same numbers in all processes.
        with contextlib.nullcontext() if in_thread else stream.drawing():
            inputs = data.batch(mine, rng, positions, len(rows))
        if in_thread and self._device.type == "cuda" and not inputs.is_cuda:
            inputs = inputs.pin_memory()  # without it, the copy would block
        targets, weights = data.targets[mine], data.weights[mine] / len(rows)
        mixing = draw_mixing(self._mixup, rng, positions, len(rows))
        return inputs, targets, weights, mixing


def _mapped_ahead(pool, function, items):
    """Yield ``function(*item)`` in order, and compute the next ones in advance."""
    pending = deque()
    items = iter(items)
    try:
        while True:
            for item in itertools.islice(items, _BATCHES_AHEAD - len(pending)):
                pending.append(pool.submit(function, *item))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
