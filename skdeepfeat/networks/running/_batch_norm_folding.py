"""Batch normalization made part of the convolution before it.

In evaluation it multiplies each channel by a number and adds another, which a
convolution does for nothing: ResNet-50 in torch on 2 cores is a tenth faster without.
"""

import collections
import logging
import weakref

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .._copying import copy_network

__all__ = ["fold_batch_norms"]

logger = logging.getLogger(__name__)


def fold_batch_norms(network, run, kept=()):
    """Return a copy of a network without the batch norms that a convolution can do.

    Which convolution feeds which norm is seen by running it: no tracing, which fails
    on the control flow of many networks (timm's with "same" padding among them). What
    else a network does with a convolution's output is not seen, so the copy has to be
    compared with the network before it is used.

    Parameters
    ----------
    network : Module
        In evaluation mode. Its hooks are the same afterwards.
    run : callable
        ``run(network)``, runs it on any images.
    kept : collection of str
        Names of modules whose outputs have to stay what they are.

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
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
        parent, _, child = norm_name.rpartition(".")
        setattr(copy.get_submodule(parent), child, _Rest(norm))
    logger.debug("%d batch norms folded into convolutions", len(pairs))
    return copy.requires_grad_(False)


class _Rest(nn.Module):
    """What a batch norm does besides: timm's have an activation of their own."""

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
    made = {}  # the convolutions' outputs, which are not kept alive
    pairs = {}

    def after_convolution(name):
        def hook(module, args, output):
            n_calls[module] += 1
            if isinstance(output, torch.Tensor):  # subclasses return what they like
                made[id(output)] = name, weakref.ref(output)

        return hook

    def before_norm(name):
        def hook(module, args):
            n_calls[module] += 1
            value = args[0] if args else None
            convolution, output = made.get(id(value), (None, None))
            if output is not None and output() is value:
                pairs.setdefault(convolution, []).append(name)

        return hook

    handles = []
    for name, module in network.named_modules():
        if not _is_plain(module):
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
        if len(norms) == 1
        and all(n_calls[network.get_submodule(m)] == 1 for m in (convolution, *norms))
    }


def _is_plain(module):
    """Return whether a module computes with its weights as they are, unobserved."""
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return not any(hooks) and not parametrize.is_parametrized(module)
