"""Replacing the pooling before the classifier of timm's networks.

The result is that of ``create_model(..., global_pool=...)`` with the same weights. The
layers between the pooling and the classifier stay.
"""

import contextlib

from ..._utils._optional import loaded_class
from ._layer import Layer
from ._poolings import pool


def find_own_pool(network):
    """Return how the pooling of a timm network can be replaced, or None.

    Returns
    -------
    {"module", "attribute"} or None
        Whether it is a module, or a method that reads an attribute.
    """
    if _pools_of(network):
        return "module"
    has_name = isinstance(getattr(network, "global_pool", None), str)
    has_attention = getattr(network, "attn_pool", None) is not None
    has_method = callable(getattr(network, "pool", None))
    return "attribute" if has_name and has_method and not has_attention else None


def can_replace_pool(own_pool, pooling):
    """Return whether what `find_own_pool` found can be replaced by a pooling."""
    if own_pool == "attribute":
        return pooling == "max"  # the only other pooling that timm has as well
    return own_pool == "module" and pooling != "cls"


@contextlib.contextmanager
def with_replaced_pool(network, pooling):
    """Let a network pool differently in the body of a ``with``.

    Parameters
    ----------
    network : Module
        Not shared with other threads.
    pooling : str or None
        None leaves the network as it is.
    """

    def hook(module, args, output):
        # timm's fast poolings say which axes they reduce, and keep them.
        axes = getattr(module.pool, "dim", (2, 3))
        layer = Layer("", "", layout="NHWC" if tuple(axes) == (1, 2) else "NCHW")
        return pool(args[0], layer, pooling).to(output.dtype).reshape(output.shape)

    with contextlib.ExitStack() as stack:
        if pooling is not None:
            pools = _pools_of(network)
            for module in pools:
                stack.callback(module.register_forward_hook(hook).remove)
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
