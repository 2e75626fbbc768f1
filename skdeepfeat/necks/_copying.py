"""Copies of a network that share its weights, or hold them on another device."""

import copy
import itertools

import torch
from torch import nn

__all__ = ["copy_network", "own_copy"]


def copy_network(network, device=None, memory_format=torch.preserve_format):
    """Return a copy with its own modules, flags and hooks, and the same weights.

    On the same device the copy shares the parameters and buffers, so it costs no
    memory. The original, which may be the user's own, is thus never touched: nothing
    has to be put back after an exception, and two threads can run two copies.

    Parameters
    ----------
    network : Module
    device : torch.device, default=None
        Where the copy's parameters and buffers are to be. By default where they are.
    memory_format : torch.memory_format, default=torch.preserve_format
        How they are to be stored there. By default as they are.

    Returns
    -------
    Module
        In evaluation mode.

    Raises
    ------
    TypeError
        If the module holds something that cannot be deep-copied, which scikit-learn's
        ``clone`` needs, too.
    """
    memo = {}
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        memo[id(tensor)] = _placed(tensor, device, memory_format)
    for module in network.modules():
        for value in vars(module).values():
            # Results kept as attributes belong to a graph, which deepcopy refuses.
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                moved = _placed(value.detach(), device, memory_format)
                memo.setdefault(id(value), moved)
    try:
        return copy.deepcopy(network, memo).eval()
    except Exception as error:  # __deepcopy__ and __reduce__ are anybody's code
        raise TypeError(
            "The 'model' parameter must be a module that copy.deepcopy can copy, as "
            f"scikit-learn's clone does. {type(network).__name__} cannot be: {error}"
        ) from error


def own_copy(network):
    """Return a copy whose parameters and buffers nobody shares, where they are."""
    copied = copy_network(network)
    # What two modules have in common, as tied weights are, they keep in common.
    fresh = {}
    for module in copied.modules():
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in fresh:
                    fresh[id(tensor)] = _cloned(tensor)
                table[name] = fresh[id(tensor)]
    return copied


def _placed(tensor, device, memory_format):
    # `to` returns the tensor itself where there is nothing to do.
    moved = tensor.detach().to(device or tensor.device, memory_format=memory_format)
    if moved.data_ptr() == tensor.data_ptr() and moved.device == tensor.device:
        return tensor
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(moved, requires_grad=tensor.requires_grad)
    return moved


def _cloned(tensor):
    clone = tensor.detach().clone(memory_format=torch.preserve_format)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(clone, tensor.requires_grad)
    return clone
