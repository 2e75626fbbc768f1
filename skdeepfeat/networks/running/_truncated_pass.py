"""Running a batch through a network, no further than the last wanted layer."""

import contextlib

import torch

from ._items import ItemInput
from ._layer import first_tensor
from ._poolings import pool, with_replaced_pool


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
    images : Tensor, shape (n_images, 3, height, width), or ItemInput
        Normalized.
    outputs : sequence of Output
    probe : Probe

    Returns
    -------
    list of Tensor, shape (n_images, n_features)
        float32, in the order of `outputs`.
    """
    rows, n_calls = {}, 0
    takes_items = isinstance(images, ItemInput)
    mask = images.mask if takes_items else None
    # Of several outputs of one module, the hook that was added last is called last.
    last = max(reversed(outputs), key=lambda one: one.source.order)

    def take(output, value):
        nonlocal n_calls
        # Pooled at once, so the map can be freed or overwritten.
        pooling = None if output.replaces_pool else output.pooling
        rows[output.layer] = pool(first_tensor(value), output.source, pooling, mask)
        if output is last:
            n_calls += 1
            # The last call counts. An exporter has to see each call return, and drops
            # what is not used.
            is_done = n_calls >= last.source.n_calls and len(rows) == len(outputs)
            if is_done and not torch.compiler.is_exporting():
                raise _Stop

    ends = {}
    with contextlib.ExitStack() as hooks, contextlib.suppress(_Stop):
        for one in outputs:
            handle = _hook(network, one, probe, take)
            if handle is None:
                ends[one.source.name] = one
            else:
                hooks.enter_context(handle)
        neck, whole = ends.get("neck"), ends.get("output")
        if neck is not None and probe.has_pre_logits:
            features = network.forward_features(images)
            pooling = neck.pooling if neck.replaces_pool else None
            with with_replaced_pool(network, pooling):
                take(neck, network.forward_head(features, pre_logits=True))
            if len(rows) < len(outputs):
                result = network.forward_head(features)
        else:
            result = images.run(network) if takes_items else network(images)
            if neck is not None:
                take(neck, result)
        if whole is not None:
            take(whole, result)
    missing = [one.layer for one in outputs if one.layer not in rows]
    if missing:
        raise RuntimeError(
            f"The layers {missing} of {type(network).__name__} ran when the network "
            "was examined, but not now: its forward depends on more than its input, or "
            "runs other layers for other items."
        )
    return [rows[one.layer] for one in outputs]


def _hook(network, output, probe, take):
    """Put a hook on the module whose call gives the output, if there is one.

    Returns
    -------
    handle with the method ``remove``, or None
    """
    if output.source == probe.output:
        return None
    if output.source != probe.neck:
        return network.get_submodule(output.source.name).register_forward_hook(
            lambda module, args, result: take(output, result)
        )
    if probe.neck_module is None:
        return None
    return network.get_submodule(probe.neck_module).register_forward_pre_hook(
        lambda module, args, kwargs: take(output, [*args, *kwargs.values()]),
        with_kwargs=True,
    )
