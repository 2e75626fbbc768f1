"""Batches of items, in the form that a user's `collate` makes of them."""

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..._utils._parameter_errors import choice_error, first_line
from ..._utils._shown import shown
from ...exceptions import BadItemError
from .._modules import floating_dtype

# The entries of a dict that mark which positions are padding.
_MASK, _LENGTHS = "attention_mask", "lengths"


@dataclass(frozen=True, eq=False)
class ItemInput:
    """What a module is called with.

    Attributes
    ----------
    args : tuple
    kwargs : dict
    mask : Tensor of bool, shape (n_items, n_positions), or None
        Which positions are not padding.
    """

    args: tuple
    kwargs: dict
    mask: torch.Tensor | None

    def run(self, network):
        """Return what the network returns."""
        return network(*self.args, **self.kwargs)


class ItemBatch:
    """Items with what `collate` makes of them.

    Parameters
    ----------
    items : list of object
    collate : callable
    collated : object, default=None
        ``collate(items)``, if it is known.
    """

    def __init__(self, items, collate, collated=None):
        self.items = items
        self._collate = collate
        self._collated = collated

    def __len__(self):
        return len(self.items)

    def __getitem__(self, part):
        items = self.items[part]
        if len(items) == len(self):
            return self
        return ItemBatch(items, self._collate)  # a part may need less padding

    def for_network(self, network, device):
        """Return the `ItemInput` on a device, with the network's type of floats."""
        if self._collated is None:
            self._collated = self._collate(self.items)
        inputs = _inputs_of(self._collated, len(self), network)
        return ItemInput(*_moved(inputs, device, floating_dtype(network)))


def collate_items(items, collate):
    """Return an `ItemBatch`, and which items `collate` cannot take.

    Parameters
    ----------
    items : list of object
    collate : callable

    Returns
    -------
    batch : ItemBatch
        Of the other items.
    failures : dict of int to BadItemError
        By index in `items`.

    Raises
    ------
    ValueError
        If `collate` takes each of the items alone, but not all together.
    """
    collated, cause = _collate_or_cause(items, collate)
    if cause is None:
        empty = _without_positions(collated, len(items))
        if not empty:
            return ItemBatch(items, collate, collated), {}
        failures = {i: BadItemError("all of it is padding") for i in empty}
    else:
        failures = {}
        for i, item in enumerate(items):
            alone, why = _collate_or_cause([item], collate)
            if why is None and _without_positions(alone, 1):
                why = "all of it is padding"
            if why is not None:
                failures[i] = BadItemError(why)
        if not failures:
            raise choice_error(
                "collate",
                f"a function that makes one input of {len(items)} items. It takes each "
                f"of them alone, but not together: {cause}. Pad them to one length, or "
                "use batch_size=1",
                collate,
            )
    good = [item for i, item in enumerate(items) if i not in failures]
    return ItemBatch(good, collate), failures


def _collate_or_cause(items, collate):
    try:
        return collate(items), None
    except Exception as error:  # of the user's function
        return None, f"collate raised {type(error).__name__}: {first_line(error)}"


def _inputs_of(collated, n_items, network):
    """Return positional inputs, inputs by keyword, and the mask of a collated batch.

    Parameters
    ----------
    collated : Tensor, ndarray, tuple, list or mapping
        One input, positional inputs, or inputs by keyword.
    n_items : int
    network : Module

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(collated, Mapping):
        kwargs = dict(collated)
        mask = _mask_of(kwargs, n_items)
        for name in (_MASK, _LENGTHS):
            if name in kwargs and not _takes(network, name):
                del kwargs[name]
        return (), kwargs, mask
    if type(collated) in (tuple, list):
        return tuple(collated), {}, None
    if isinstance(collated, (torch.Tensor, np.ndarray)) or hasattr(collated, "to"):
        return (collated,), {}, None
    wanted = (
        "a function that returns a tensor, a tuple of positional inputs or a dict of "
        f"keyword inputs. It returned {shown(collated)}, of type "
        f"{type(collated).__name__}"
    )
    raise choice_error("collate", wanted, type(collated).__name__, error=TypeError)


def _without_positions(collated, n_items):
    """Return the indices of items of which nothing but padding is left."""
    if not isinstance(collated, Mapping):
        return []
    mask = _mask_of(collated, n_items)
    return [] if mask is None else torch.nonzero(~mask.any(1)).flatten().tolist()


def _mask_of(entries, n_items):
    """Return which positions are not padding, or None if no entry tells."""
    if entries.get(_MASK) is not None:
        mask = _entry(entries, _MASK)
        if mask.ndim == 2 and len(mask) == n_items:
            return mask != 0
    if entries.get(_LENGTHS) is not None:
        lengths = _entry(entries, _LENGTHS).reshape(-1, 1)
        if len(lengths) == n_items:
            n_positions = _n_positions(entries, n_items, int(lengths.max()))
            return torch.arange(n_positions, device=lengths.device) < lengths
    return None


def _entry(entries, name):
    try:
        return torch.as_tensor(entries[name])
    except Exception as error:  # torch raises several
        wanted = f"a function that returns numbers as {name!r}"
        raise choice_error("collate", wanted, entries[name], error=TypeError) from error


def _n_positions(entries, n_items, longest):
    """Return the length that items were padded to."""
    for name, value in entries.items():
        shape = getattr(value, "shape", ())
        if name != _LENGTHS and len(shape) >= 2 and shape[0] == n_items:
            return max(shape[1], longest)
    return longest


def _takes(network, name):
    try:
        parameters = inspect.signature(network.forward).parameters
    except (TypeError, ValueError):  # a scripted or compiled module
        return True
    kinds = {one.kind for one in parameters.values()}
    return name in parameters or inspect.Parameter.VAR_KEYWORD in kinds


def _moved(value, device, dtype):
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        value = torch.as_tensor(value)
    if isinstance(value, torch.Tensor):
        is_float = value.is_floating_point() and value.layout == torch.strided
        return value.to(device, dtype) if is_float else value.to(device)
    if type(value) in (list, tuple):
        return type(value)(_moved(one, device, dtype) for one in value)
    if type(value) is dict:
        return {name: _moved(one, device, dtype) for name, one in value.items()}
    # Such as a packed sequence, or a batch of graphs.
    return value.to(device) if hasattr(value, "to") else value


@contextlib.contextmanager
def explained(inputs):
    """Add to an error of the network what it was called with."""
    try:
        yield
    except Exception as error:
        named = {**dict(enumerate(inputs.args)), **inputs.kwargs}
        shapes = [f"{name}: {_shape_of(one)}" for name, one in named.items()]
        error.add_note(f"The module's inputs from 'collate': {', '.join(shapes)}.")
        raise


def _shape_of(value):
    if isinstance(value, torch.Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return type(value).__name__
