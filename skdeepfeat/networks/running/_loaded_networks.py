"""Loaded networks, shared by the threads of one process.

The two networks that were used last stay in main memory: a grid search alternates
between candidates, and a fold should not read the weights again. A device holds the
weights only while a network is running there, once for all who run it.
"""

import contextlib
import json
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..._utils._device import free_device_memory
from ..._utils._forks import in_child, released_after_fork, undisturbed_by_forks
from ..._utils._printable import printable
from .._modules import copy_network

logger = logging.getLogger(__name__)

_N_KEPT = 2


@dataclass
class _Entry:
    lock: threading.Lock = field(default_factory=threading.Lock)
    network: nn.Module | None = None
    random_head: tuple[str, ...] = ()
    # By device, other than the CPU, as long as they are borrowed.
    on_device: MutableMapping[Any, nn.Module] = field(
        default_factory=weakref.WeakValueDictionary
    )


_entries: OrderedDict[tuple, _Entry] = OrderedDict()
_entries_lock = released_after_fork(threading.Lock())


@in_child
def _forget_borrowers():
    """Keep the weights, which a child shares with its parent, without borrowers."""
    for entry in _entries.values():
        entry.lock = threading.Lock()
        entry.on_device.clear()


@contextlib.contextmanager
def borrowed(spec, device, check_head):
    """Lend a network on a device; the device's memory is freed at the end.

    Parameters
    ----------
    spec : NetworkSpec
    device : torch.device
    check_head : callable
        Called with the names of the modules of the head that are random, because the
        weights have none for it. It may raise.

    Yields
    ------
    Module
        For the borrower alone, but weights may be shared. In evaluation mode.
    """
    network, lent = spec.module, weakref.WeakValueDictionary()
    if network is None:
        network = _shared(spec, device, check_head)
    try:
        yield lent.setdefault("copy", copy_network(network, device))
    finally:
        del network
        # Modules that should be gone may remain.
        free_device_memory(device, collects=len(lent) > 0)


def _shared(spec, device, check_head):
    """Return the network that all borrowers on a device share."""
    entry = _entry_of(spec)
    with undisturbed_by_forks(), entry.lock:
        if entry.network is None:
            entry.network, entry.random_head = _load(spec)
        check_head(entry.random_head)
        if device.type == "cpu":
            return entry.network
        network = entry.on_device.get(device)
        if network is None:
            network = copy_network(entry.network, device)
        entry.on_device[device] = network
        return network


def is_loaded(spec):
    """Return whether the weights of a network are in main memory."""
    if spec.module is not None:
        return True
    entry = _entries.get(_key_of(spec))
    return entry is not None and entry.network is not None


def _key_of(spec):
    return json.dumps(spec.architecture, sort_keys=True), spec.weights.store_key()


def _entry_of(spec):
    key = _key_of(spec)
    with _entries_lock:
        entry = _entries.setdefault(key, _Entry())
        _entries.move_to_end(key)
        while len(_entries) > _N_KEPT:
            _entries.popitem(last=False)
    return entry


def _load(spec):
    label = printable(spec.weights.label)
    logger.info("loading %s, weights %s", spec.name, label)
    network, random_head = spec.weights.build_network(spec)
    network.eval().requires_grad_(False)
    # Convolutions are faster with channels last. `Module.to` would fail at the weights
    # of 3-D convolutions.
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network, random_head
