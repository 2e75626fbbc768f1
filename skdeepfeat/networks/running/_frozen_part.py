"""Passes that begin at the output of a layer instead of the image."""

import collections
import contextlib

import torch

from ..._utils._hooks import forward_hooks
from ._layer import Layer

# Tolerance between a layer's output for one image alone and in a batch of two. Other
# kernels may compute it, on GPUs with fewer bits.
_TOLERANCE = 1e-2


class LayerOutputs(torch.Tensor):
    """What a layer returned for some images, from which a network goes on.

    Parameters
    ----------
    tensor : Tensor, shape (n_images, ...)
    """

    def __new__(cls, tensor):
        return tensor.as_subclass(cls)


class FrozenPart:
    """The modules that run before the end of a layer, so that they can be left out.

    Operations between modules are still run, on unused values: a network's
    own ``forward`` decides what it calls. What a network's code does not say is tried
    out: whether what follows depends on nothing but the layer, as it does not in
    networks with connections around it, and whether the layer depends on nothing but
    the image, as it does not if it has a trained weight or looks at the whole batch.

    Parameters
    ----------
    network : Module
        In evaluation mode, so that passes can be compared.
    layer : Layer
        Where the part ends.
    run : callable
        ``run(images) -> Tensor``, a pass of the network.
    images : Tensor, shape (2, 3, height, width)
        To try it with.

    Attributes
    ----------
    modules : set of Module
        Those that run in the part, with the layer.

    Raises
    ------
    ValueError
        If the network cannot go on from the layer, or another image or a step of the
        training changes what the layer returns for an image.
    """

    def __init__(self, network, layer: Layer, run, images):
        self.layer = layer
        self._end = network.get_submodule(layer.name)
        with torch.enable_grad():
            expected, maps = self._trace(network, run, images)
        if maps.requires_grad:
            raise ValueError(f"{layer.name!r} depends on weights that are trained")
        with torch.no_grad():
            # This also replaces values that the network has stored in the first pass.
            _, results, _ = self._passed(run, images[:1], [self._end])
            alone = results[self._end]
            if not (alone - maps[:1]).norm() <= _TOLERANCE * maps[:1].norm():
                raise ValueError(f"{layer.name!r} depends on the other images")
            with self.left_out(maps, torch.nan):
                found = run(images)
        # The same operations on the same numbers, so equal but for their order.
        if not torch.allclose(found, expected.detach(), rtol=1e-4, atol=1e-6):
            raise ValueError(f"what follows {layer.name!r} depends on more than it")

    def _trace(self, network, run, images):
        """Note which modules end before the layer; return the rows and its output."""
        rows, results, ended = self._passed(run, images, network.modules())
        n_calls = collections.Counter(ended)
        if n_calls[self._end] != 1 or results[self._end] is None:
            raise ValueError(f"{self.layer.name!r} runs again, or returns no tensor")
        self.modules = set(ended[: ended.index(self._end) + 1])
        inside = {
            child
            for module in self.modules
            for child in module.modules()
            if child is not module
        }
        # If a module is called again later, that call is also after the layer.
        outermost = [module for module in self.modules if module not in inside]
        if any(n_calls[module] != 1 or results[module] is None for module in outermost):
            raise ValueError("a module runs again, or returns more than a tensor")
        if any(len(results[module]) != len(images) for module in outermost):
            raise ValueError("a module returns other than one result for each image")
        self._shapes = {module: results[module].shape[1:] for module in outermost}
        return rows, results[self._end]

    def _passed(self, run, images, modules):
        """Return the rows of a pass, what modules returned last, and their order."""
        results, ended = {}, []

        def note(key, module, args, output):
            output = output if torch.is_tensor(output) else None
            if module is self._end and output is not None:
                output = output.clone()  # the next layer may work in place
            results[module] = output
            ended.append(module)

        with forward_hooks(note, enumerate(modules)):
            rows = run(images)
        return rows, results, ended

    @contextlib.contextmanager
    def left_out(self, maps, filling=None):
        """Have the network go on from the layer's output in the body of a ``with``.

        Parameters
        ----------
        maps : Tensor, shape (n_images, ...)
        filling : float, default=None
            What the modules before the layer return. None: anything.
        """

        def stand_in(shape):
            def forward(*args, **kwargs):
                result = maps.new_empty((len(maps), *shape))
                return result if filling is None else result.fill_(filling)

            return forward

        replaced = {m: stand_in(shape) for m, shape in self._shapes.items()}
        replaced[self._end] = lambda *args, **kwargs: maps
        # Functions in instances take precedence over the methods of their classes.
        before = {m: vars(m)["forward"] for m in replaced if "forward" in vars(m)}
        try:
            for module, forward in replaced.items():
                module.forward = forward
            yield
        finally:
            for module in replaced:
                vars(module).pop("forward", None)
                if module in before:
                    module.forward = before[module]
