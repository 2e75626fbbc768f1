"""From a layer's output to one row of features for each image."""

import math
from collections.abc import Callable

import torch

from ..._utils._choices import POOLINGS
from ..._utils._parameter_errors import choice_error
from ._layer import Layer

_MAPS = ("NCHW", "NHWC")


def _generalized_mean(positions, axes, power=3.0, eps=1e-6):
    """GeM with the parameters of Radenovic, Tolias and Chum.

    "Fine-tuning CNN image retrieval with no human annotation", TPAMI 2019.
    """
    return positions.clamp(min=eps).pow(power).mean(axes).pow(1 / power)


# ``reduce(positions, axes)``: float32 values and the axes to reduce. A new pooling is
# an entry here, and its name in _utils/_choices.py.
_REDUCTIONS: dict[str | None, Callable] = {
    "avg": torch.mean,
    "mean": torch.mean,
    "max": torch.amax,
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
    if layer.layout == "NLC":
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
    if layer.layout == "NLC":
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
    return layer.shape[0] if layer.layout == "NCHW" else layer.shape[-1]


def pool(tensor: torch.Tensor, layer: Layer, pooling: str | None) -> torch.Tensor:
    """Return rows of float32, shape (n_images, n_features), in memory of their own.

    Parameters
    ----------
    tensor : Tensor
        The layer's output, in any precision.
    layer : Layer
    pooling : str or None
        As `resolve_pooling` returns it.
    """
    # A copy, because the next layer may work in place, as ReLU often does. float32,
    # because half precision is too coarse for the sum over a map.
    if pooling in (None, "flatten"):
        return tensor.reshape(tensor.shape[0], -1).to(torch.float32, copy=True)
    if pooling == "cls":
        return tensor[:, 0].to(torch.float32, copy=True)
    if layer.layout == "NLC":
        tensor, axes = tensor[:, layer.n_prefix_tokens :], [1]
    else:
        axes = [2, 3] if layer.layout == "NCHW" else [1, 2]
    return _REDUCTIONS[pooling](tensor.to(torch.float32), axes)
