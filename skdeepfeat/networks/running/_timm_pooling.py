"""Replacing the pooling before the classifier of timm's networks.

The result is as with ``create_model(..., global_pool=...)`` and the same weights: the
layers between the pooling and the classifier stay.
"""

import contextlib

from timm.layers import SelectAdaptivePool2d

from ._layer import Layer
from ._poolings import pool

__all__ = ["SWAPPED_POOLINGS", "find_own_pool", "swapped_pool"]

# By what a network pools with: a module, or a method that reads an attribute, whose
# values are other names for ours.
SWAPPED_POOLINGS = {"module": ("max", "gem"), "attribute": ("max", "mean")}
_NAMES_OF_TIMM = {"max": "max", "mean": "avg"}


def find_own_pool(network):
    """Return how a timm network pools, or None where it cannot be exchanged."""
    if _pools_of(network):
        return "module"
    named = isinstance(getattr(network, "global_pool", None), str)
    attends = getattr(network, "attn_pool", None) is not None
    by_method = callable(getattr(network, "pool", None))
    return "attribute" if named and by_method and not attends else None


@contextlib.contextmanager
def swapped_pool(network, pooling):
    """Let a network pool otherwise while its ``forward_head`` runs.

    Parameters
    ----------
    network : Module
        Used by nobody else. It is the same afterwards.
    pooling : {"max", "gem", "mean"} or None
        None leaves it as it is.
    """
    if pooling is None:
        yield
        return
    pools = _pools_of(network)
    if not pools:
        before = network.global_pool
        network.global_pool = _NAMES_OF_TIMM[pooling]
        try:
            yield
        finally:
            network.global_pool = before
        return

    def hook(module, args, output):
        # timm's fast poolings keep the axes that they reduce.
        axes = getattr(module.pool, "dim", (2, 3))
        layer = Layer("", "", layout="NHWC" if tuple(axes) == (1, 2) else "NCHW")
        return pool(args[0], layer, pooling).to(output.dtype).reshape(output.shape)

    handles = [one.register_forward_hook(hook) for one in pools]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pools_of(network):
    return [
        one
        for one in network.modules()
        if isinstance(one, SelectAdaptivePool2d) and not one.is_identity()
    ]
