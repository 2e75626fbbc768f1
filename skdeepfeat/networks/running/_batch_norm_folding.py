"""Batch normalization made part of the convolution before it.

In evaluation, batch normalization multiplies each channel by a number and adds another.
A convolution can do that with other weights, at no cost.
"""

import collections
import logging
import weakref

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..._utils._hooks import forward_hooks
from .._modules import copy_network, zero_subnormal
from ._row_difference import TOLERANCE, largest_difference

logger = logging.getLogger(__name__)


def fold_batch_norms(network, run, kept=()):
    """Return a copy of a network with batch norms folded into convolutions.

    Which convolution feeds which norm is found by running the network. Tracing would
    fail at the control flow of many networks, such as timm's with "same" padding. A
    network may also use the output of a convolution in a way that is not found, so the
    copy is compared with the network.

    Parameters
    ----------
    network : Module
        In evaluation mode. Its hooks are the same afterwards.
    run : callable
        ``run(network)`` returns its rows for some images.
    kept : collection of str
        Names of modules whose outputs must not change.

    Returns
    -------
    Module
        The weights of all other modules are shared. The network itself if there is
        nothing to fold.

    Raises
    ------
    ValueError
        If the rows of the copy would differ.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network  # without running it
    pairs, wanted = _find_pairs(network, run, kept)
    if not pairs:
        return network
    copy = copy_network(network)
    for convolution_name, norm_name in pairs.items():
        convolution = copy.get_submodule(convolution_name)
        norm = copy.get_submodule(norm_name)
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        zero_subnormal(fused)
        # timm's norms contain their activation, which stays.
        others = nn.Sequential(collections.OrderedDict(norm.named_children()))
        copy.set_submodule(norm_name, others)
    logger.debug("%d batch norms folded into convolutions", len(pairs))
    copy.requires_grad_(False)
    error = largest_difference(run(copy), wanted)
    if not error <= TOLERANCE:
        raise ValueError(f"rows would differ by {error:.1e}")
    return copy


def _find_pairs(network, run, kept):
    """Return {name of a convolution: name of the norm that takes its output}, and rows.

    The rows are those that `run` returned.
    """
    n_calls, pairs = collections.Counter(), {}
    made = {}  # weak references to the outputs of convolutions, by their id

    def note(name, module, args, output):
        n_calls[name] += 1
        if isinstance(module, nn.BatchNorm2d):
            value = args[0] if args else None
            convolution, reference = made.get(id(value), (None, None))
            if reference is not None and reference() is value:
                pairs.setdefault(convolution, []).append(name)
        elif isinstance(output, torch.Tensor):  # subclasses return anything
            made[id(output)] = name, weakref.ref(output)

    modules = [
        (name, module)
        for name, module in network.named_modules()
        if _may_be_folded(module, name in kept)
    ]
    with forward_hooks(note, modules):
        rows = run(network)
    found = {
        convolution: norms[0]
        for convolution, norms in pairs.items()
        if len(norms) == 1 and n_calls[convolution] == n_calls[norms[0]] == 1
    }
    return found, rows


def _may_be_folded(module, is_kept):
    # Only modules that use their weights unchanged and have no hooks.
    hooked = module._forward_hooks or module._forward_pre_hooks
    if hooked or parametrize.is_parametrized(module):
        return False
    is_norm = isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    return is_norm or (isinstance(module, nn.Conv2d) and not is_kept)
