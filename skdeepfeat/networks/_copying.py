"""Copies of a network that share its weights, own them, or hold them elsewhere."""

import copy
import itertools

import torch
from torch import nn

__all__ = ["copy_module", "copy_network", "module_on_cpu", "own_copy"]

# Attempts to copy a module, each of which finds another kind of attribute that cannot
# be copied. Locks, open files and packages are the common ones.
_N_ATTEMPTS = 50


def copy_network(
    network, device=None, memory_format=torch.preserve_format, *, owned=False
):
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
    owned : bool, default=False
        Whether the copy has parameters and buffers that nobody shares.

    Returns
    -------
    Module
        In evaluation mode. What cannot be copied, such as a lock, is shared.

    Raises
    ------
    TypeError
        If the module itself or one inside it refuses to be copied.
    """
    memo = {}
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        # What two modules have in common, as tied weights are, they keep in common.
        memo[id(tensor)] = _placed(tensor, device, memory_format, owned)
    for module in network.modules():
        for value in vars(module).values():
            # Results kept as attributes belong to a graph, which deepcopy refuses.
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                moved = _placed(value.detach(), device, memory_format, owned)
                memo.setdefault(id(value), moved)
    return _at_rest(copy_module(network, memo))


def own_copy(network, device=None):
    """Return a copy whose parameters and buffers nobody shares, where they are."""
    return copy_network(network, device, owned=True)


def copy_module(network, memo=None):
    """Return a deep copy of a module that shares what cannot be copied.

    Parameters
    ----------
    network : Module
    memo : dict, default=None
        As that of `copy.deepcopy`: what takes the place of which object.

    Raises
    ------
    TypeError
        If the module itself or one inside it refuses to be copied.
    """
    shared = dict(memo or {})
    for _ in range(_N_ATTEMPTS):
        try:
            return copy.deepcopy(network, dict(shared))
        except Exception as error:  # __deepcopy__ and __reduce__ are anybody's code
            cause, culprit = error, _refuser(error)
        if culprit is None or isinstance(culprit, nn.Module) or id(culprit) in shared:
            break
        shared[id(culprit)] = culprit
        # Others of its kind, of which every layer may have one.
        for module in network.modules():
            for value in vars(module).values():
                if type(value) is type(culprit):
                    shared.setdefault(id(value), value)
    raise TypeError(
        "The 'model' parameter must be a module that copy.deepcopy can copy. "
        f"{type(network).__name__} cannot be: {str(cause)[:200]}"
    ) from cause


def _refuser(error):
    """Return the object that `copy.deepcopy` was at when it raised, or None."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code is copy.deepcopy.__code__:
            found = frame.f_locals.get("x")
        traceback = traceback.tb_next
    return found


def _at_rest(network):
    try:
        return network.eval()
    except Exception:  # torch.export's modules have no modes, and raise
        for module in network.modules():
            module.training = False
        return network


def _placed(tensor, device, memory_format, owned):
    if nn.parameter.is_lazy(tensor):
        return copy.deepcopy(tensor)  # it gets its values in place, when it is run
    try:
        # `to` returns the tensor itself where there is nothing to do.
        moved = tensor.detach().to(device or tensor.device, memory_format=memory_format)
        is_shared = moved.device == tensor.device and (
            moved.is_meta or moved.data_ptr() == tensor.data_ptr()
        )
        if is_shared and owned:
            moved = moved.clone(memory_format=torch.preserve_format)
    except (RuntimeError, NotImplementedError, ValueError, TypeError):
        # Sparse tensors have no memory format.
        return _cloned(tensor) if owned else tensor
    if is_shared and not owned:
        return tensor
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(moved, requires_grad=tensor.requires_grad)
    return moved


def _cloned(tensor):
    for clone in (lambda: tensor.detach().clone(), lambda: copy.deepcopy(tensor)):
        try:
            return clone()
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            continue
    return tensor


def module_on_cpu(module):
    """Return a module, or a copy of it on the CPU where it is elsewhere.

    A pickle made beside a GPU is to be read on a machine without one.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return module
    return copy.deepcopy(module).cpu()
