"""Running a batch through a network, no further than the last wanted layer."""

import torch

from ._layer import first_tensor
from ._poolings import pool
from ._timm_pooling import swapped_pool

__all__ = ["run_truncated"]


class _Stop(BaseException):
    """The last wanted layer is done.

    Not an Exception, so that a network's own ``except Exception`` lets it pass.
    """


def run_truncated(network, images, outputs, probe):
    """Run a network until all wanted layers are known, and pool them.

    Parameters
    ----------
    network : Module
        In evaluation mode. Its hooks are the same afterwards.
    images : Tensor, shape (batch, 3, height, width)
        Normalized.
    outputs : sequence of Output
    probe : Probe

    Returns
    -------
    list of Tensor, shape (batch, n_features)
        float32, in the order of `outputs`.
    """
    catcher = _Catcher(outputs, probe)
    try:
        catcher.attach(network)
        _forward(network, images, catcher, probe)
    except _Stop:
        pass
    finally:
        catcher.detach()
    missing = [one.layer for one in outputs if one.layer not in catcher.rows]
    if missing:
        raise RuntimeError(
            f"The layers {missing} of {type(network).__name__} ran when the network "
            "was examined, but not now: its forward depends on more than the image."
        )
    return [catcher.rows[one.layer] for one in outputs]


def _forward(network, images, catcher, probe):
    """Call the network; what hooks cannot see is caught here."""
    if catcher.has_neck and probe.has_pre_logits:
        features = network.forward_features(images)
        with swapped_pool(network, catcher.own_pooling):
            catcher.take("neck", network.forward_head(features, pre_logits=True))
        if catcher.is_complete():
            return
        result = network.forward_head(features)
    else:
        result = network(images)
        if catcher.has_neck and probe.neck_module is None:
            catcher.take("neck", result)
    catcher.take("output", result)


class _Catcher:
    """The rows of the wanted layers, caught by hooks as the layers run."""

    def __init__(self, outputs, probe):
        self.wanted = {one.layer: one for one in outputs}
        self.rows = {}
        neck = self.wanted.get("neck")
        self.has_neck = neck is not None and neck.module == "neck"
        self.own_pooling = neck.pooling if neck and neck.swaps_pool else None
        self._neck_module = probe.neck_module if self.has_neck else None
        self._handles = []
        self._calls = 0
        # The neck may be another pooling of the last layer's map: of those that come
        # from one module, the hook that was attached last is called last.
        last = max(reversed(outputs), key=lambda one: one.source.order)
        self._last = last.layer if self._is_hooked(last.layer) else None

    def _is_hooked(self, name):
        if name == "neck" and self.has_neck:
            return self._neck_module is not None
        return name != "output"

    def attach(self, network):
        for name in filter(self._is_hooked, self.wanted):
            before = name == "neck" and self.has_neck
            module = network.get_submodule(
                self._neck_module if before else self.wanted[name].module
            )
            if before:
                handle = module.register_forward_pre_hook(
                    self._input_hook(name), with_kwargs=True
                )
            else:
                handle = module.register_forward_hook(self._output_hook(name))
            self._handles.append(handle)

    def _input_hook(self, name):
        def hook(module, args, kwargs):
            self._arrived(name, [*args, *kwargs.values()])

        return hook

    def _output_hook(self, name):
        def hook(module, args, output):
            self._arrived(name, output)

        return hook

    def _arrived(self, name, value):
        self.take(name, value)
        if name == self._last:
            self._calls += 1
            # A module that is used several times counts where it is used last.
            done = self._calls >= self.wanted[name].source.n_calls
            # An exporter wants to see each call return, and drops what nobody uses.
            if done and not torch.compiler.is_exporting():
                raise _Stop

    def take(self, name, value):
        """Pool at once: the map itself is then free to be given up or overwritten."""
        if name in self.wanted:
            one = self.wanted[name]
            how = None if one.swaps_pool else one.pooling
            self.rows[name] = pool(first_tensor(value), one.source, how)

    def is_complete(self):
        return self.rows.keys() >= self.wanted.keys()

    def detach(self):
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
