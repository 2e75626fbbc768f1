"""Ways to replace a layer by smaller ones, with their costs and errors.

`FACTORIZATIONS` is a registry: a new method is a function here that yields the options
of a layer.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ..networks import change_layer, is_convolution, is_linear, multiply_adds_of_train
from ._decompositions import (
    TuckerDecomposition,
    matrix_factors,
    response_factors,
    separable_factors,
    split_size,
    tensor_train_cores,
)

# Ranks are multiples of this where a layer is wide: processors work on 8 or 16 numbers
# at a time.
_MULTIPLE = 8
_MAX_RANKS = 16

# Fraction of the energy of a kernel that Tucker ranks keep.
_ENERGIES = (0.998, 0.99, 0.98, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4)
_TRAIN_RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_N_TRAIN_CORES = 3


@dataclass(frozen=True, eq=False)
class Option:
    """One way to replace a layer.

    Attributes
    ----------
    change : dict
        See `networks.change_layer`; without the key ``"layer"``.
    multiply_adds, n_parameters : int
        Of the new layers; multiply-adds for one image.
    error : float
        Energy of the change of the responses, relative to the energy of the responses.
        If no images are used, the same for the weights. For Tucker factors it is an
        upper bound, because these are computed only by `make`.
    make : callable
        Returns the tensors of the new layer.
    """

    change: dict
    multiply_adds: int
    n_parameters: int
    error: float
    make: Callable


@dataclass(frozen=True)
class Factorization:
    """A method.

    Attributes
    ----------
    options : callable
        ``options(use)`` yields the options for a `LayerUse`.
    cost : {"multiply_adds", "n_parameters"}
        What it saves.
    sees_images : bool
        Whether it needs the statistics of the responses.
    """

    options: Callable
    cost: str = "multiply_adds"
    sees_images: bool = False


def apply_option(network, name, option):
    """Replace a layer of a network; its change is listed there."""
    change_layer(network, {"layer": name, **option.change}, option.make())


# -- Low rank


def _low_rank_options(use):
    """Take principal components of the responses, or separate a kernel."""
    weight, old_bias = _detached(use.layer)
    mean, components, variances = use.principal_components()

    def make(rank):
        found = response_factors(weight, old_bias, mean, components, rank)
        return _pair(use.layer, *found)

    yield from _truncations(use, variances, True, make)
    if is_convolution(use.layer) and min(use.kernel) > 1:
        yield from _separable_options(use)


def _plain_options(use):
    """Truncate the singular values of the weights."""
    weight, bias = _detached(use.layer)
    # The singular values are sorted, so a smaller rank is a part of the factors.
    first, second = matrix_factors(weight, _largest_rank(use.layer))
    energies = second.square().sum(0).square()

    def make(rank):
        return _pair(use.layer, first[:rank], second[:, :rank], bias)

    yield from _truncations(use, energies, bias is not None, make)


def _truncations(use, energies, has_bias, make):
    """Yield the options that keep the first components, each of which has an energy."""
    n_outputs, n_inputs = len(use.layer.weight), use.layer.weight[0].numel()
    total = float(energies.sum())
    for rank in _ranks(_largest_rank(use.layer)):
        n_weights = rank * (n_inputs + n_outputs)
        yield Option(
            {"kind": "low_rank", "rank": rank, "bias": has_bias},
            use.n_outputs * n_weights,
            n_weights + has_bias * n_outputs,
            float(energies[rank:].sum()) / total if total else 0.0,
            functools.partial(make, rank),
        )


def _pair(layer, first, second, bias):
    second = second if is_linear(layer) else second[..., None, None]
    return _with_bias({"0.weight": first, "1.weight": second}, "1.bias", bias)


def _separable_options(use):
    layer = use.layer
    weight, bias = _detached(layer)
    n_out, n_in, height, width = weight.shape
    wanted = _run(use, weight)
    energy = float(wanted.square().sum())
    largest = min(n_in * height, n_out * width)
    columns, rows = separable_factors(weight, largest)
    for rank in _ranks(largest):
        # The singular values are sorted, so a smaller rank is a part of the factors.
        n_weights = rank * (n_in * height + n_out * width)
        multiply_adds = (
            use.n_columns * rank * n_in * height + use.n_outputs * rank * n_out * width
        )
        if multiply_adds >= use.multiply_adds:
            continue
        kernel = torch.einsum(
            "rih,orw->oihw", columns[:rank, ..., 0], rows[:, :rank, 0]
        )
        lost = float((_run(use, kernel) - wanted).square().sum()) / max(energy, 1e-300)
        tensors = {"0.weight": columns[:rank], "1.weight": rows[:, :rank]}
        yield Option(
            {"kind": "separable", "rank": rank},
            multiply_adds,
            n_weights + (0 if bias is None else n_out),
            lost,
            functools.partial(_with_bias, tensors, "1.bias", bias),
        )


def _run(use, kernel):
    """Return the centered responses of a kernel to the inputs that were kept.

    The border does not matter here, so nothing is padded.
    """
    layer = use.layer
    stride, dilation = layer.stride, layer.dilation
    rows = []
    for one in use.sample:
        is_small = min(one.shape[2:]) < max(layer.kernel_size) * max(dilation)
        padding = layer.kernel_size if is_small else 0
        found = F.conv2d(one, kernel.to(one), None, stride, padding, dilation)
        rows.append(found.movedim(1, -1).flatten(0, -2))
    rows = torch.cat(rows).double()
    return rows - rows.mean(0)


# -- Tensors


def _tucker_options(use):
    layer = use.layer
    if not is_convolution(layer) or max(use.kernel) == 1:
        yield from _plain_options(use)
        return
    weight, bias = _detached(layer)
    n_out, n_in, height, width = weight.shape
    decomposition = TuckerDecomposition(weight)
    seen = set()
    for share in _ENERGIES:
        rank_in, rank_out = decomposition.ranks(share)
        ranks = (_rounded(rank_in, n_in), _rounded(rank_out, n_out))
        if ranks in seen:
            continue
        seen.add(ranks)
        n_core = ranks[0] * ranks[1] * height * width
        multiply_adds = use.n_inputs * n_in * ranks[0] + use.n_outputs * (
            n_core + ranks[1] * n_out
        )
        if multiply_adds >= use.multiply_adds:
            continue
        n_weights = n_in * ranks[0] + n_core + ranks[1] * n_out
        make = functools.partial(_tucker_tensors, decomposition, ranks, bias)
        yield Option(
            {"kind": "tucker", "ranks": list(ranks)},
            multiply_adds,
            n_weights + (0 if bias is None else n_out),
            decomposition.lost_energy(*ranks),
            # Cached, because it takes most of the time, and several candidates may have
            # this option. Few options are made, so this takes little memory.
            functools.cache(make),
        )


def _tucker_tensors(decomposition, ranks, bias):
    first, core, last = decomposition.factors(*ranks)
    tensors = {
        "0.weight": first[..., None, None],
        "1.weight": core,
        "2.weight": last[..., None, None],
    }
    return _with_bias(tensors, "2.bias", bias)


def _tensor_train_options(use):
    layer = use.layer
    if not is_linear(layer):
        return
    weight, bias = _detached(layer)
    out_shape = split_size(layer.out_features, _N_TRAIN_CORES)
    in_shape = split_size(layer.in_features, _N_TRAIN_CORES)
    energy = float(weight.double().square().sum())
    cores = tensor_train_cores(weight, out_shape, in_shape, max(_TRAIN_RANKS))
    for max_rank in _TRAIN_RANKS:
        if max_rank > max(core.shape[-1] for core in cores):
            break
        cores = tensor_train_cores(weight, out_shape, in_shape, max_rank)
        n_weights = sum(core.numel() for core in cores)
        if n_weights >= weight.numel():
            break
        kept = float(cores[-1].square().sum())
        tensors = {f"cores.{k}": core for k, core in enumerate(cores)}
        yield Option(
            {
                "kind": "tensor_train",
                "in_shape": in_shape,
                "out_shape": out_shape,
                "ranks": [core.shape[-1] for core in cores[:-1]],
            },
            use.n_outputs * multiply_adds_of_train(cores),
            n_weights + (0 if bias is None else layer.out_features),
            max(0.0, 1 - kept / energy) if energy else 0.0,
            functools.partial(_with_bias, tensors, "bias", bias),
        )


FACTORIZATIONS = {
    "low_rank": Factorization(_low_rank_options, sees_images=True),
    "svd": Factorization(_plain_options),
    "tucker": Factorization(_tucker_options),
    "tensor_train": Factorization(_tensor_train_options, cost="n_parameters"),
}


# -- Sizes


def _largest_rank(layer):
    return min(layer.weight.shape[0], layer.weight[0].numel())


def _ranks(limit):
    """Return the ranks to choose from, largest first, at most `_MAX_RANKS`."""
    step = _MULTIPLE if limit >= 4 * _MULTIPLE else 1
    n = limit // step
    stride = max(1, math.ceil(n / _MAX_RANKS))
    return [k * step for k in range(n, 0, -stride)]


def _rounded(rank, limit):
    """Return a rank rounded up to a multiple of 8, if a layer is wide."""
    if limit < 4 * _MULTIPLE:
        return rank
    return min(limit, math.ceil(rank / _MULTIPLE) * _MULTIPLE)


def _detached(layer):
    bias = None if layer.bias is None else layer.bias.detach()
    return layer.weight.detach(), bias


def _with_bias(tensors, name, bias):
    return tensors if bias is None else {**tensors, name: bias}
