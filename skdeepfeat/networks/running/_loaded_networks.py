"""Loaded networks, shared by the threads of one process.

The two networks used last stay in the main memory, because a grid search alternates
between candidates and a fold should not read the weights again. A device holds the
weights only while somebody is running them there, once for all of them.
"""

import contextlib
import json
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..._utils._device import free_device_memory
from ..._utils._forks import in_child, released_after_fork, undisturbed_by_forks
from ..._utils._random import seeded
from .._copying import copy_network
from ..sources._offline import explain_downloads
from ..sources._weights_sources import RandomWeights

__all__ = ["borrowed", "forget_networks"]

logger = logging.getLogger(__name__)

_N_KEPT = 2


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    network: nn.Module | None = None
    random_head: tuple[str, ...] = ()
    on_device: dict[Any, nn.Module] = field(default_factory=dict)
    n_users: dict[Any, int] = field(default_factory=dict)


_entries: OrderedDict[tuple, _Entry] = OrderedDict()
_entries_lock = released_after_fork(threading.Lock())


@in_child
def _forget_borrowers():
    """Keep the weights, which a child shares with its parent, and no borrower."""
    for entry in _entries.values():
        entry.lock = threading.Lock()
        entry.on_device, entry.n_users = {}, {}


@contextlib.contextmanager
def borrowed(spec, device):
    """Lend a network on a device; the device's memory is given back at the end.

    Parameters
    ----------
    spec : NetworkSpec
    device : torch.device

    Yields
    ------
    Module, tuple of str
        A network for the borrower alone (weights may be shared), in evaluation mode;
        and the modules of its head that had to be left random.
    """
    if spec.module is not None:
        try:
            yield copy_network(spec.module, device), ()
        finally:
            free_device_memory(device)
        return
    entry = _entry_of(spec)
    with undisturbed_by_forks(), entry.lock:
        if entry.network is None:
            entry.network, entry.random_head = _load(spec)
        if device not in entry.on_device:
            on_cpu = device.type == "cpu"
            entry.on_device[device] = (
                entry.network if on_cpu else copy_network(entry.network, device)
            )
        entry.n_users[device] = entry.n_users.get(device, 0) + 1
    try:
        yield copy_network(entry.on_device[device]), entry.random_head
    finally:
        with entry.lock:
            entry.n_users[device] -= 1
            if entry.n_users[device] == 0:
                del entry.on_device[device], entry.n_users[device]
        free_device_memory(device)


def forget_networks():
    """Drop the networks that are kept in the main memory."""
    with _entries_lock:
        _entries.clear()


def _entry_of(spec):
    key = (json.dumps(spec.architecture, sort_keys=True), spec.weights.store_key())
    with _entries_lock:
        entry = _entries.setdefault(key, _Entry())
        _entries.move_to_end(key)
        while len(_entries) > _N_KEPT:
            _entries.popitem(last=False)
    return entry


def _load(spec):
    logger.info("loading %s, weights %s", spec.name, spec.weights.label)
    if isinstance(spec.weights, RandomWeights):
        with seeded(spec.weights.seed):
            network, random_head = spec.build(), ()
    else:
        with explain_downloads():
            file = spec.weights.read()
        with seeded(0):
            network, random_head = spec.install(file)
    network.eval().requires_grad_(False)
    # Convolutions are faster so: 16.7 against 10.1 images/s (ResNet-50, 2 cores).
    # `Module.to` would stumble over the weights of 3-D convolutions.
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network, random_head
