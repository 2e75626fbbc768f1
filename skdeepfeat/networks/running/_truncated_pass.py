"""Running a batch through a network, no further than the last wanted layer."""

import contextlib

import torch

from ._layer import first_tensor
from ._poolings import pool
from ._timm_pooling import with_replaced_pool

__all__ = ["run_truncated"]


class _Stop(BaseException):
    """The last wanted layer is done.

    Not an Exception, so that an ``except Exception`` in the network does not catch it.
    """


def run_truncated(network, images, outputs, probe):
    """Run a network until all wanted layers are known, and pool them.

    Parameters
    ----------
    network : Module
        In evaluation mode. Its hooks are the same afterwards.
    images : Tensor, shape (n_images, 3, height, width)
        Normalized.
    outputs : sequence of Output
    probe : Probe

    Returns
    -------
    list of Tensor, shape (n_images, n_features)
        float32, in the order of `outputs`.
    """
    rows, n_calls = {}, 0
    # Of several outputs of one module, the hook that was added last is called last.
    last = max(reversed(outputs), key=lambda one: one.source.order)

    def take(output, value):
        # Pooled at once, so the map can be freed or overwritten.
        pooling = None if output.replaces_pool else output.pooling
        rows[output.layer] = pool(first_tensor(value), output.source, pooling)

    def on_call(output, value):
        nonlocal n_calls
        take(output, value)
        if output is last:
            n_calls += 1
            # The last call counts. An exporter has to see each call return, and drops
            # what is not used.
            is_done = n_calls >= output.source.n_calls
            if is_done and not torch.compiler.is_exporting():
                raise _Stop

    def before_module(output):
        return lambda module, args, kwargs: on_call(output, [*args, *kwargs.values()])

    def after_module(output):
        return lambda module, args, result: on_call(output, result)

    neck = whole = None
    with contextlib.ExitStack() as hooks, contextlib.suppress(_Stop):
        for one in outputs:
            if one.source == probe.output:
                whole = one
            elif one.source != probe.neck:
                module = network.get_submodule(one.module)
                handle = module.register_forward_hook(after_module(one))
                hooks.callback(handle.remove)
            elif probe.neck_module is None:
                neck = one
            else:
                module = network.get_submodule(probe.neck_module)
                handle = module.register_forward_pre_hook(
                    before_module(one), with_kwargs=True
                )
                hooks.callback(handle.remove)
        if neck is not None and probe.has_pre_logits:
            features = network.forward_features(images)
            pooling = neck.pooling if neck.replaces_pool else None
            with with_replaced_pool(network, pooling):
                take(neck, network.forward_head(features, pre_logits=True))
            if len(rows) < len(outputs):
                result = network.forward_head(features)
        else:
            result = network(images)
            if neck is not None:
                take(neck, result)
        if whole is not None:
            take(whole, result)
    missing = [one.layer for one in outputs if one.layer not in rows]
    if missing:
        raise RuntimeError(
            f"The layers {missing} of {type(network).__name__} ran when the network "
            "was examined, but not now: its forward depends on more than the image."
        )
    return [rows[one.layer] for one in outputs]
