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

from .._modules import copy_network, zero_subnormal

__all__ = ["fold_batch_norms"]

logger = logging.getLogger(__name__)


def fold_batch_norms(network, run, kept=()):
    """Return a copy of a network with batch norms folded into convolutions.

    Which convolution feeds which norm is found by running the network. Tracing would
    fail at the control flow of many networks, such as timm's with "same" padding. A
    network may also use the output of a convolution in a way that is not found, so the
    caller has to compare the copy with the network.

    Parameters
    ----------
    network : Module
        In evaluation mode. Its hooks are the same afterwards.
    run : callable
        ``run(network)`` runs it on any images.
    kept : collection of str
        Names of modules whose outputs must not change.

    Returns
    -------
    Module or None
        The weights of all other modules are shared. None if there is nothing to fold.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return None  # without running it
    pairs = _find_pairs(network, run, kept)
    if not pairs:
        return None
    copy = copy_network(network)
    for convolution_name, norm_name in pairs.items():
        convolution = copy.get_submodule(convolution_name)
        norm = copy.get_submodule(norm_name)
        fused = fuse_conv_bn_eval(convolution, norm)
        convolution.weight, convolution.bias = fused.weight, fused.bias
        zero_subnormal(fused)
        copy.set_submodule(norm_name, _WithoutNorm(norm))
    logger.debug("%d batch norms folded into convolutions", len(pairs))
    return copy.requires_grad_(False)


class _WithoutNorm(nn.Module):
    """The other modules in a batch norm: timm's contain their activation."""

    def __init__(self, norm):
        super().__init__()
        for name, child in norm.named_children():
            self.add_module(name, child)

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x


def _find_pairs(network, run, kept):
    """Return {name of a convolution: name of the norm that takes its output}."""
    n_calls = collections.Counter()
    made = {}  # weak references to the outputs of convolutions, by their id
    pairs = {}

    def after_convolution(name):
        def hook(module, args, output):
            n_calls[name] += 1
            if isinstance(output, torch.Tensor):  # subclasses return anything
                made[id(output)] = name, weakref.ref(output)

        return hook

    def before_norm(name):
        def hook(module, args):
            n_calls[name] += 1
            value = args[0] if args else None
            convolution, output = made.get(id(value), (None, None))
            if output is not None and output() is value:
                pairs.setdefault(convolution, []).append(name)

        return hook

    handles = []
    for name, module in network.named_modules():
        # Only modules that compute with their weights as they are, with no hooks.
        hooks = module._forward_hooks or module._forward_pre_hooks
        if hooks or parametrize.is_parametrized(module):
            continue
        if isinstance(module, nn.Conv2d) and name not in kept:
            handles.append(module.register_forward_hook(after_convolution(name)))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            handles.append(module.register_forward_pre_hook(before_norm(name)))
    try:
        run(network)
    finally:
        for handle in handles:
            handle.remove()
    return {
        convolution: norms[0]
        for convolution, norms in pairs.items()
        if len(norms) == 1 and n_calls[convolution] == n_calls[norms[0]] == 1
    }
