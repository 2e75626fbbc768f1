"""Layers of a network replaced by smaller ones, each change described as data.

A change is a dict of JSON types: the name of a layer, a kind and sizes, such as
``{"layer": "conv1", "kind": "low_rank", "rank": 8, "bias": True}``. A changed network
carries the list of its changes. So a saved file needs no code to bring it back: the
original network is built, and the changes are applied to it in order.
"""

import copy
import math

import torch
from torch import nn

from .._utils._optional import loaded_class
from .._utils._parameter_errors import first_line
from .._utils._shown import shown
from ._tensor_train import TensorTrainLinear

# The name of the attribute of a changed network.
_CHANGES = "_skdeepfeat_changes"

# Layers take memory even without values, and a malicious file may declare many.
_MAX_CHANGES = 10_000
# Maximum number of repeated blocks, and of modules in one of them.
_MAX_REPEATED = 200
_MAX_BLOCK = 100

# Maximum order of a tensor train.
_MAX_CORES = 8

# Maximum factor of one widening, size of an added kernel, levels of modules inside a
# layer that is deepened, and levels of modules in the name of a changed layer.
_MAX_GROWTH = 64
_MAX_KERNEL = 15
_MAX_DEPTH = 50
_MAX_LEVELS = 100

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def changes_of(network):
    """Return the changes of a network, first to last.

    Parameters
    ----------
    network : Module

    Returns
    -------
    list of dict
    """
    return copy.deepcopy(getattr(network, _CHANGES, []))


def apply_changes(network, changes):
    """Change the layers of a network as another one's were.

    Parameters
    ----------
    network : Module
        It is changed. Its new layers are on the meta device, so that sizes from a file
        take no memory before they are compared with the tensors in it.
    changes : list of dict
        May come from a stranger's file.

    Returns
    -------
    Module
        The network.

    Raises
    ------
    ValueError
        If a change does not fit the network.
    """
    if not isinstance(changes, list):
        raise ValueError("its changes of layers are not a list.")
    for change in changes:
        change_layer(network, change)
    return network


def change_layer(network, change, tensors=None):
    """Replace a layer of a network.

    Parameters
    ----------
    network : Module
        It is changed, and lists the change.
    change : dict
        With the keys ``"layer"``, ``"kind"``, and those of the kind.
    tensors : dict of str to Tensor, default=None
        The parameters and buffers of the new layer. Without them, a layer that replaces
        another one is on the meta device.

    Raises
    ------
    ValueError
        If the network has no such layer, there is no such kind, the sizes do not fit
        the layer, or the network has too many changes.
    """
    layer, build = _layer_of(network, change)
    earlier = getattr(network, _CHANGES, [])
    if len(earlier) >= _MAX_CHANGES:
        raise _wrong(change, f"more than {_MAX_CHANGES} changes")
    if change["kind"] == "repeated":
        n_repeated = sum(one["kind"] == "repeated" for one in earlier)
        if n_repeated >= _MAX_REPEATED:
            raise _wrong(change, f"more than {_MAX_REPEATED} repeated blocks")
    sizes = {k: v for k, v in change.items() if k not in ("layer", "kind")}
    # A layer that is changed in place may lose its tensors.
    like = next(layer.parameters(), torch.empty(0))
    layout = _memory_format(like)
    try:
        new = build(layer, **sizes)
    except (TypeError, RuntimeError) as error:  # torch: the sizes overflow
        raise _wrong(change, first_line(error)) from error
    except ValueError as error:
        raise _wrong(change, error) from None
    if tensors is not None:
        new.to_empty(device=like.device)
    if new is not layer:
        new.to(like.dtype)
        new.requires_grad_(like.requires_grad).train(layer.training)
        network.set_submodule(change["layer"], new)
    if tensors is not None:
        _fill(new, tensors, layout)
    setattr(network, _CHANGES, [*earlier, dict(change)])


def merge_resizings(network, first):
    """Keep only the last of several resizings of a layer.

    Parameters
    ----------
    network : Module
        With changes of the kind ``"resized"`` from the number `first` on.
    first : int
    """
    changes = changes_of(network)
    last = {change["layer"]: change for change in changes[first:]}
    setattr(network, _CHANGES, [*changes[:first], *last.values()])


def is_linear(layer):
    """Return whether a layer is exactly torch's linear one."""
    return type(layer) is nn.Linear


def is_convolution(layer):
    """Return whether a layer is a convolution that can be rebuilt from its sizes."""
    return type(layer) is nn.Conv2d or _pads_as_tensorflow(layer)


def _pads_as_tensorflow(layer):
    return type(layer) is loaded_class("timm.layers", "Conv2dSame")


def _layer_of(network, change):
    """Return the layer that a change names, and the function of its kind."""
    try:
        name, build = change["layer"], LAYER_KINDS[change["kind"]]
        if not name:
            raise _wrong(change, "it is the whole network")
        parts = name.split(".")
        # Deeply nested layers would take minutes.
        if len(parts) > _MAX_LEVELS:
            raise _wrong(change, f"more than {_MAX_LEVELS} levels of modules")
        layer = network
        for part in parts:
            # Not with getattr, because reading a property runs code of the network.
            layer = layer._modules[part]
        if layer is None:
            raise KeyError
    except (AttributeError, KeyError, TypeError):
        raise _wrong(change, "there is no such layer or kind") from None
    return layer, build


def _wrong(change, cause):
    return ValueError(f"it has a changed layer {shown(change)}: {cause}.")


def _memory_format(weight):
    if weight.ndim == 4 and not weight.is_contiguous():
        if weight.is_contiguous(memory_format=torch.channels_last):
            return torch.channels_last
    return torch.contiguous_format


@torch.no_grad()
def _fill(layer, tensors, memory_format):
    own = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    if own.keys() != tensors.keys():
        raise ValueError(f"the tensors are {sorted(tensors)}, not {sorted(own)}.")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise ValueError(f"{name} is {tensors[name].shape}, not {tensor.shape}.")
        layout = memory_format if tensor.ndim == 4 else torch.contiguous_format
        tensor.data = tensors[name].to(tensor).clone(memory_format=layout)


# -- Kinds. Each function returns a layer on the meta device, without values.


def _low_rank(layer, rank, bias):
    """Map inputs to `rank` features, and these to the outputs."""
    _check_flag(bias)
    if is_linear(layer):
        n_in, n_out = layer.in_features, layer.out_features
        _check(rank, min(n_in, n_out))
        with torch.device("meta"):
            return nn.Sequential(
                nn.Linear(n_in, rank, bias=False), nn.Linear(rank, n_out, bias=bias)
            )
    n_in, n_out = _channels(layer)
    _check(rank, min(n_in * math.prod(layer.kernel_size), n_out))
    return nn.Sequential(
        _convolution(layer, n_in, rank, bias=False, axes=(0, 1)),
        _convolution(layer, rank, n_out, bias=bias, axes=()),
    )


def _separable(layer, rank):
    """Apply columns of the kernel, then rows (Jaderberg et al. 2014)."""
    n_in, n_out = _channels(layer)
    height, width = layer.kernel_size
    _check(rank, min(n_in * height, n_out * width))
    return nn.Sequential(
        _convolution(layer, n_in, rank, bias=False, axes=(0,)),
        _convolution(layer, rank, n_out, bias=layer.bias is not None, axes=(1,)),
    )


def _tucker(layer, ranks):
    """Apply the kernel between fewer channels (Tucker-2, Kim et al. 2016)."""
    n_in, n_out = _channels(layer)
    rank_in, rank_out = ranks
    _check(rank_in, n_in)
    _check(rank_out, n_out)
    return nn.Sequential(
        _convolution(layer, n_in, rank_in, bias=False, axes=()),
        _convolution(layer, rank_in, rank_out, bias=False, axes=(0, 1)),
        _convolution(layer, rank_out, n_out, bias=layer.bias is not None, axes=()),
    )


def _tensor_train(layer, in_shape, out_shape, ranks):
    if not is_linear(layer):
        raise ValueError(f"a {type(layer).__name__} has no tensor train")
    pairs = list(zip(in_shape, out_shape, strict=True))
    # First, because the product of many sizes takes minutes.
    if not len(ranks) == len(pairs) - 1 < _MAX_CORES:
        raise ValueError("the numbers of its sizes and ranks do not match")
    for size in (*in_shape, *out_shape):
        _check(size, max(layer.in_features, layer.out_features))
    if (math.prod(in_shape), math.prod(out_shape)) != (
        layer.in_features,
        layer.out_features,
    ):
        raise ValueError("the sizes are not those of the layer")
    for k, rank in enumerate(ranks, 1):
        left = math.prod(n * m for n, m in pairs[:k])
        right = math.prod(n * m for n, m in pairs[k:])
        _check(rank, min(left, right))
    with torch.device("meta"):
        return TensorTrainLinear(in_shape, out_shape, ranks, layer.bias is not None)


def _resized(layer, inputs, outputs):
    """Remove channels of the layer itself."""
    n_in, n_out = _sizes_of(layer)
    _check(inputs, n_in)
    _check(outputs, n_out)
    return _set_sizes(layer, inputs, outputs)


def _widened(layer, inputs, outputs):
    """Add channels to the layer itself."""
    n_in, n_out = _sizes_of(layer)
    _check(inputs, _MAX_GROWTH * n_in, n_in)
    _check(outputs, _MAX_GROWTH * n_out, n_out)
    return _set_sizes(layer, inputs, outputs, "meta")


def _sizes_of(layer):
    """Return the numbers of inputs and outputs of a layer that can be resized."""
    if isinstance(layer, _BATCH_NORM):
        return layer.num_features, layer.num_features
    if is_linear(layer):
        return layer.in_features, layer.out_features
    if is_convolution(layer):
        if layer.groups != 1 and not (
            layer.groups == layer.in_channels == layer.out_channels
        ):
            raise ValueError("its channels are in groups")
        return layer.in_channels, layer.out_channels
    raise ValueError(f"a {type(layer).__name__} has no channels")


def _set_sizes(layer, inputs, outputs, device=None):
    """Give a layer other tensors, without values, by default where the old ones are."""
    if isinstance(layer, _BATCH_NORM):
        layer.num_features = outputs
    elif is_linear(layer):
        layer.in_features, layer.out_features = inputs, outputs
    else:
        if layer.groups != 1:
            if inputs != outputs:
                raise ValueError("a depthwise layer has as many inputs as outputs")
            layer.groups = inputs
        layer.in_channels, layer.out_channels = inputs, outputs
    n_columns = inputs // getattr(layer, "groups", 1)
    for name in ("weight", "bias", "running_mean", "running_var"):
        old = getattr(layer, name, None)
        if old is not None:
            shape = (outputs,)
            if old.ndim > 1:  # a matrix or a kernel
                shape = (outputs, n_columns, *old.shape[2:])
            empty = torch.empty(shape, dtype=old.dtype, device=device or old.device)
            if isinstance(old, nn.Parameter):
                empty = nn.Parameter(empty, requires_grad=old.requires_grad)
            setattr(layer, name, empty)
    return layer


def _deepened(layer, channels, kernel, batch_norm, before):
    """Let an identity follow a layer, for maps (with a kernel) or vectors.

    Parameters
    ----------
    layer : Module
    channels : int
    kernel : int or None
        Size of the kernel, odd.
    batch_norm : bool
        Whether the new layer has one.
    before : bool
        Whether the ReLU between the two belongs before the new layer, as one follows.
    """
    # Each change of the same name adds a level, and many levels take minutes.
    if any(name.count(".") >= _MAX_DEPTH for name, _ in layer.named_modules()):
        raise ValueError(f"it has more than {_MAX_DEPTH} levels of modules")
    # As many as the layer has parameters for each of its outputs.
    _check(channels, max(len(one) for one in layer.parameters()))
    _check_flag(batch_norm)
    _check_flag(before)
    with torch.device("meta"):
        if kernel is None:
            new = nn.Linear(channels, channels, bias=not batch_norm)
            norm = nn.BatchNorm1d
        else:
            _check(kernel, _MAX_KERNEL)
            new = nn.Conv2d(
                channels, channels, kernel, padding=kernel // 2, bias=not batch_norm
            )
            norm = nn.BatchNorm2d
        parts = [new, norm(channels)] if batch_norm else [new]
    parts = [nn.ReLU(), *parts] if before else [*parts, nn.ReLU()]
    return nn.Sequential(layer, *parts)


def _repeated(layer):
    """Let a block be followed by another one of its kind."""
    # Otherwise each repetition of the same name would double the network.
    if type(layer) is nn.Sequential:
        raise ValueError("a sequence is not a block")
    if sum(1 for _ in layer.modules()) > _MAX_BLOCK:
        raise ValueError(f"it has more than {_MAX_BLOCK} modules")
    return nn.Sequential(layer, copy.deepcopy(layer).to("meta"))


# A new kind of layer is a function here.
LAYER_KINDS = {
    "deepened": _deepened,
    "low_rank": _low_rank,
    "repeated": _repeated,
    "resized": _resized,
    "separable": _separable,
    "tensor_train": _tensor_train,
    "tucker": _tucker,
    "widened": _widened,
}


def _channels(layer):
    """Return the numbers of channels of a convolution that is not grouped."""
    if not is_convolution(layer) or layer.groups != 1:
        raise ValueError(f"this {type(layer).__name__} cannot be factorized")
    return layer.in_channels, layer.out_channels


def _convolution(like, n_in, n_out, *, bias, axes):
    """Return a convolution with the geometry of another one along some axes."""
    sizes = {
        name: tuple(
            value if axis in axes else default
            for axis, value in enumerate(getattr(like, name))
        )
        for name, default in [("kernel_size", 1), ("stride", 1), ("dilation", 1)]
    }
    if _pads_as_tensorflow(like) and axes:
        with torch.device("meta"):
            return type(like)(n_in, n_out, bias=bias, **sizes)
    padding = like.padding
    if not axes:
        padding = 0
    elif not isinstance(padding, str):
        padding = tuple(one if axis in axes else 0 for axis, one in enumerate(padding))
    mode = like.padding_mode if axes else "zeros"
    with torch.device("meta"):
        return nn.Conv2d(
            n_in, n_out, bias=bias, padding=padding, padding_mode=mode, **sizes
        )


def _check(size, high, low=1):
    if type(size) is not int or not low <= size <= high:
        raise ValueError(f"the size {size!r} is not in {low} to {high}")


def _check_flag(value):
    if type(value) is not bool:
        raise ValueError(f"{value!r} is not a flag")
