"""Copies of torch modules, and the type and values of their weights."""

import contextlib
import copy
import copyreg
import itertools

import torch
from torch import nn

# The names of batch normalization's buffers.
_STATISTICS = ("running_mean", "running_var")

# Attempts to copy a module. Each finds one more type of attribute that deepcopy
# refuses, such as locks, open files and packages.
_N_ATTEMPTS = 50


def attribute_of(network, name):
    """Return an attribute, or None if there is none or ``__getattr__`` fails."""
    try:
        return getattr(network, name, None)
    except Exception:  # a user's __getattr__ may raise anything
        return None


def floating_dtype(network):
    """Return the type of the first parameter that is of a floating-point type."""
    floating = (p.dtype for p in network.parameters() if p.is_floating_point())
    return next(floating, torch.float32)


def non_finite_tensors(network):
    """Return the names of the weights and buffers with NaN or infinite values."""
    found = []
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        # Other buffers may be infinite by design, such as masks.
        is_finite = isinstance(tensor, nn.Parameter) or name.endswith(_STATISTICS)
        bad = ~torch.isfinite(tensor) if is_finite else torch.isnan(tensor)
        if bad.any():
            found.append(name)
    return found


def copy_network(
    network, device=None, memory_format=torch.preserve_format, *, owned=False
):
    """Return a copy with its own modules, flags and hooks.

    By default, the copy shares the parameters and buffers, so it takes no memory. The
    original, which may be the user's own, is never changed: nothing has to be restored
    after an exception, and two threads can run two copies.

    Parameters
    ----------
    network : Module
    device : torch.device, default=None
        The device of the copy's parameters and buffers. By default the original's.
    memory_format : torch.memory_format, default=torch.preserve_format
        The order of the copy's parameters and buffers in memory.
    owned : bool, default=False
        Whether the copy has its own parameters and buffers.

    Returns
    -------
    Module
        In evaluation mode. What cannot be copied, such as a lock, is shared.

    Raises
    ------
    TypeError
        If the module itself or one inside it cannot be copied.
    """
    memo = {}
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        # By identity, so that tied weights stay tied.
        memo[id(tensor)] = _copy_tensor(tensor, device, memory_format, owned)
    for module in network.modules():
        for value in vars(module).values():
            # deepcopy refuses tensors that belong to a graph, such as stored results.
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                moved = _copy_tensor(value.detach(), device, memory_format, owned)
                memo.setdefault(id(value), moved)
    copied = copy_module(network, memo)
    try:
        return copied.eval()
    except Exception:  # torch.export's modules have no modes, and raise
        for module in copied.modules():
            module.training = False
        return copied


def copy_module(network, memo=None):
    """Return a deep copy of a module that shares what cannot be copied.

    Parameters
    ----------
    network : Module
    memo : dict, default=None
        As that of `copy.deepcopy`: what replaces which object.

    Raises
    ------
    TypeError
        If the module itself or one inside it cannot be copied.
    """
    shared = dict(memo or {})
    for _ in range(_N_ATTEMPTS):
        try:
            memo = dict(shared)
            copied = copy.deepcopy(network, memo)
            _copy_slots(network, memo)
            return copied
        except Exception as error:  # __deepcopy__ and __reduce__ may raise anything
            cause, culprit = error, _find_culprit(error)
        if culprit is None or isinstance(culprit, nn.Module) or id(culprit) in shared:
            break
        shared[id(culprit)] = culprit
        # Every layer may have its own type.
        for module in network.modules():
            for value in vars(module).values():
                if type(value) is type(culprit):
                    shared.setdefault(id(value), value)
    raise TypeError(
        "The 'model' parameter must be a module that copy.deepcopy can copy. "
        f"{type(network).__name__} cannot be: {str(cause)[:200]}"
    ) from cause


def _copy_slots(network, memo):
    """Copy what is in ``__slots__``, which `Module.__setstate__` forgets."""
    for module in network.modules():
        if (copied := memo.get(id(module))) is not None:
            for name, value in slots_of(module).items():
                object.__setattr__(copied, name, copy.deepcopy(value, memo))


def slots_of(value):
    """Return the attributes in ``__slots__`` of an object, by their names."""
    found = {}
    for name in copyreg._slotnames(type(value)):
        with contextlib.suppress(AttributeError):  # it is empty
            found[name] = object.__getattribute__(value, name)
    return found


def _find_culprit(error):
    """Return the object that `copy.deepcopy` was copying when it raised, or None."""
    found, traceback = None, error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code is copy.deepcopy.__code__:
            found = frame.f_locals.get("x")
        traceback = traceback.tb_next
    return found


def _copy_tensor(tensor, device, memory_format, owned):
    if nn.parameter.is_lazy(tensor):
        # The first pass sets its values in place. deepcopy refuses lazy buffers.
        return type(tensor)(tensor.requires_grad, tensor.device, tensor.dtype)
    try:
        # `to` returns the tensor itself if there is nothing to do.
        moved = tensor.detach().to(device or tensor.device, memory_format=memory_format)
        is_shared = moved.device == tensor.device and (
            moved.is_meta or moved.data_ptr() == tensor.data_ptr()
        )
        if is_shared and owned:
            moved = moved.clone(memory_format=torch.preserve_format)
    except (RuntimeError, NotImplementedError, ValueError, TypeError):
        # Sparse tensors have no memory format.
        return tensor.detach().clone() if owned else tensor
    if is_shared and not owned:
        return tensor
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(moved, requires_grad=tensor.requires_grad)
    return moved


def module_on_cpu(module):
    """Return a module, or a copy on the CPU if it is on another device.

    A pickle from a machine with a GPU must be readable without one.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return module
    return copy.deepcopy(module).cpu()


@torch.no_grad()
def zero_subnormal(network):
    """Replace subnormal numbers in the parameters and buffers by zeros.

    Processors need many times longer for them. `torch.set_flush_denormal` does not
    reach the worker threads.

    Returns
    -------
    int
        How many there were.
    """
    n = 0
    for tensor in [*network.parameters(), *network.buffers()]:
        if tensor.is_floating_point():
            smallest = torch.finfo(tensor.dtype).tiny
            is_subnormal = (tensor != 0) & (tensor.abs() < smallest)
            n += int(is_subnormal.sum())
            tensor.masked_fill_(is_subnormal, 0)
    return n
