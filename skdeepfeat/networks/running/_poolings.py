"""From a layer's output to one row of features for each image.

The pooling before the classifier of timm's networks can be replaced. The result is that
of ``create_model(..., global_pool=...)`` with the same weights. The layers between the
pooling and the classifier stay.
"""

import contextlib
import math
from collections.abc import Callable

import torch

from ..._utils._choices import POOLINGS
from ..._utils._hooks import forward_hooks
from ..._utils._optional import loaded_class
from ..._utils._parameter_errors import choice_error
from .._modules import attribute_of
from ._layer import Layer

_MAPS = ("NCHW", "NHWC")


def _mean(positions, axes, mask):
    if mask is None:
        return positions.mean(axes)
    return positions.where(mask, 0).sum(axes) / mask.sum(axes)


def _max(positions, axes, mask):
    return (positions if mask is None else positions.where(mask, -torch.inf)).amax(axes)


def _generalized_mean(positions, axes, mask, power=3.0, eps=1e-6):
    """GeM with the parameters of Radenovic, Tolias and Chum.

    "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019.
    """
    return _mean(positions.clamp(min=eps).pow(power), axes, mask).pow(1 / power)


# ``reduce(positions, axes, mask)``: float32 values, the axes to reduce, and which
# positions count, for items that `collate` pads: shape (n_items, n_positions, 1), or
# None for all. A new pooling is an entry here, and its name in _utils/_choices.py.
_REDUCTIONS: dict[str | None, Callable] = {
    "avg": _mean,
    "mean": _mean,
    "max": _max,
    "gem": _generalized_mean,
}


def changes_vectors(pooling: str) -> bool:
    """Return whether a pooling also applies to a neck that is a vector.

    Such a neck was pooled by the network itself, and is then replaced.
    """
    return pooling not in ("auto", "avg", "mean", "flatten")


def can_pool(layer: Layer, pooling: str) -> bool:
    """Return whether a pooling applies to a layer's output."""
    if layer.layout in _MAPS:
        return pooling != "cls"
    if layer.layout in ("NLC", "NCL"):
        return pooling != "cls" or layer.has_class_token
    return layer.layout == "other" and pooling in ("auto", "flatten")


def resolve_pooling(pooling: str, layer: Layer) -> str | None:
    """Return the pooling of a layer's output, with one name for each result.

    Parameters
    ----------
    pooling : str
        One of `POOLINGS`.
    layer : Layer

    Returns
    -------
    str or None
        None for vectors, which are not pooled.

    Raises
    ------
    ValueError
        If the pooling does not apply to such a layer.
    """
    if layer.layout == "vector":
        return None
    if not can_pool(layer, pooling):
        raise choice_error("pooling", _why_not(layer), pooling)
    if layer.layout in _MAPS:
        return "avg" if pooling in ("auto", "mean") else pooling
    if layer.layout in ("NLC", "NCL"):
        if pooling == "auto":
            return "cls" if layer.has_class_token else "mean"
        return "mean" if pooling == "avg" else pooling
    return "flatten"


def _why_not(layer):
    place = f"for layer {layer.name!r}, whose output of shape {layer.shape}"
    if layer.layout == "other":
        return f"'flatten' {place} is neither a map nor tokens"
    names = ", ".join(repr(name) for name in POOLINGS if can_pool(layer, name))
    return f"one of {names} {place} has no class token"


def n_pooled(layer: Layer, pooling: str | None) -> int:
    """Return the number of features of a layer after `pooling` (a resolved one)."""
    if pooling in (None, "flatten"):
        return math.prod(layer.shape)
    return layer.shape[0] if layer.layout in ("NCHW", "NCL") else layer.shape[-1]


def pool(
    tensor: torch.Tensor,
    layer: Layer,
    pooling: str | None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return rows of float32, shape (n_images, n_features), in memory of their own.

    Parameters
    ----------
    tensor : Tensor
        The layer's output, in any precision.
    layer : Layer
    pooling : str or None
        As `resolve_pooling` returns it.
    mask : Tensor of bool, shape (n_items, n_positions), or None, default=None
        Which positions of the input are not padding. If the layer has a different
        number of positions, the mask is resampled to it.
    """
    # A copy, because the next layer may work in place, as ReLU often does. float32,
    # because half precision is too coarse for the sum over a map.
    if pooling in (None, "flatten"):
        return tensor.reshape(tensor.shape[0], -1).to(torch.float32, copy=True)
    if pooling == "cls":
        return tensor[:, 0].to(torch.float32, copy=True)
    fitted = None
    if layer.layout in ("NLC", "NCL"):
        if layer.layout == "NCL":
            tensor = tensor.transpose(1, 2)
        tensor, axes = tensor[:, layer.n_prefix_tokens :], [1]
        if mask is not None:
            fitted = _fit_mask(mask, tensor.shape[1])[:, :, None]
    else:
        axes = [2, 3] if layer.layout == "NCHW" else [1, 2]
    return _REDUCTIONS[pooling](tensor.to(torch.float32), axes, fitted)


def _fit_mask(mask, n_positions):
    """Return a mask for a different number of positions, as after a stride."""
    n = mask.shape[1]
    if n == n_positions:
        return mask
    nearest = torch.arange(n_positions, device=mask.device) * n // n_positions
    return mask[:, nearest]


def find_own_pool(network):
    """Return how the pooling of a timm network can be replaced, or None.

    Returns
    -------
    {"module", "attribute"} or None
        Whether it is a module, or a method that reads an attribute.
    """
    if _pools_of(network):
        return "module"
    has_name = isinstance(attribute_of(network, "global_pool"), str)
    has_attention = attribute_of(network, "attn_pool") is not None
    has_method = callable(attribute_of(network, "pool"))
    return "attribute" if has_name and has_method and not has_attention else None


def can_replace_pool(own_pool, pooling):
    """Return whether what `find_own_pool` found can be replaced by a pooling."""
    if own_pool == "attribute":
        return pooling == "max"  # the only other pooling that timm has as well
    return own_pool == "module" and pooling != "cls"


@contextlib.contextmanager
def with_replaced_pool(network, pooling):
    """Replace the pooling of a network within a ``with`` block.

    Parameters
    ----------
    network : Module
        Not shared with other threads.
    pooling : str or None
        None leaves the network as it is.
    """

    def hook(key, module, args, output):
        # timm's fast poolings say which axes they reduce, and keep them.
        axes = getattr(module.pool, "dim", (2, 3))
        layer = Layer("", "", layout="NHWC" if tuple(axes) == (1, 2) else "NCHW")
        return pool(args[0], layer, pooling).to(output.dtype).reshape(output.shape)

    with contextlib.ExitStack() as stack:
        if pooling is not None:
            pools = _pools_of(network)
            stack.enter_context(forward_hooks(hook, enumerate(pools)))
            if not pools:
                stack.callback(setattr, network, "global_pool", network.global_pool)
                network.global_pool = pooling
        yield


def _pools_of(network):
    kind = loaded_class("timm.layers", "SelectAdaptivePool2d")
    return [
        one
        for one in network.modules()
        if isinstance(one, kind) and not one.is_identity()
    ]
