"""From a layer's output to one row of features for each image."""

import math

import torch

from .._parameter_errors import choice_error
from ._layer import Layer

__all__ = ["POOLINGS", "can_pool", "n_pooled", "pool", "resolve_pooling"]

POOLINGS = ("auto", "avg", "max", "gem", "flatten", "cls", "mean")

# Generalised mean with the parameters of Radenovic, Tolias and Chum, "Fine-tuning CNN
# image retrieval with no human annotation", TPAMI 2019.
_GEM_POWER = 3.0
_GEM_EPS = 1e-6

_MAPS = ("NCHW", "NHWC")


def can_pool(layer: Layer, pooling: str) -> bool:
    """Whether a pooling applies to a layer's output."""
    if layer.layout in _MAPS:
        return pooling != "cls"
    if layer.layout == "NLC":
        return pooling != "cls" or layer.has_class_token
    return layer.layout == "other" and pooling in ("auto", "flatten")


def resolve_pooling(pooling: str, layer: Layer) -> str | None:
    """Return what is done to a layer's output, by one name for one result.

    Parameters
    ----------
    pooling : str
        One of `POOLINGS`.
    layer : Layer

    Returns
    -------
    {"avg", "max", "gem", "flatten", "cls", "mean"} or None
        None for vectors, which stay as they are.

    Raises
    ------
    ValueError
        If the pooling does not apply to such a layer.
    """
    if layer.layout == "vector":
        return None
    if not can_pool(layer, pooling):
        raise choice_error("pooling", _why_not(layer, pooling), pooling)
    if layer.layout in _MAPS:
        return "avg" if pooling in ("auto", "mean") else pooling
    if layer.layout == "NLC":
        if pooling == "auto":
            return "cls" if layer.has_class_token else "mean"
        return "mean" if pooling == "avg" else pooling
    return "flatten"


def _why_not(layer, pooling):
    place = f"for layer {layer.name!r}, whose output of shape {layer.shape}"
    if layer.layout == "other":
        return f"'flatten' {place} is neither a map nor tokens"
    return (
        f"one of {', '.join(map(repr, [p for p in POOLINGS if can_pool(layer, p)]))} "
        f"{place} has no class token"
    )


def n_pooled(layer: Layer, pooling: str | None) -> int:
    """Return the number of features of a layer after `pooling` (a resolved one)."""
    if pooling in (None, "flatten"):
        return math.prod(layer.shape)
    return layer.shape[0] if layer.layout == "NCHW" else layer.shape[-1]


def pool(tensor: torch.Tensor, layer: Layer, pooling: str | None) -> torch.Tensor:
    """Return float32 rows, shape (batch, n_features), in memory of their own.

    Parameters
    ----------
    tensor : Tensor
        The layer's output, in whatever precision.
    layer : Layer
    pooling : str or None
        As `resolve_pooling` returns it.

    Returns
    -------
    Tensor
    """
    # A copy, because the next layer may work in place (ReLU often does); float32,
    # because half precision is too coarse to sum a map in.
    if pooling in (None, "flatten"):
        return tensor.reshape(tensor.shape[0], -1).to(torch.float32, copy=True)
    if pooling == "cls":
        return tensor[:, 0].to(torch.float32, copy=True)
    if layer.layout == "NLC":
        tensor, axes = tensor[:, layer.n_prefix_tokens :], (1,)
    else:
        axes = (2, 3) if layer.layout == "NCHW" else (1, 2)
    tensor = tensor.to(torch.float32)
    if pooling == "max":
        return tensor.amax(axes)
    if pooling == "gem":
        powers = tensor.clamp(min=_GEM_EPS).pow(_GEM_POWER)
        return powers.mean(axes).pow(1 / _GEM_POWER)
    return tensor.mean(axes)
