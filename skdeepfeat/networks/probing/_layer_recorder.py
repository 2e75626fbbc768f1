"""Recording every module of a network during one pass."""

import functools
from dataclasses import replace

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..running._layer import Layer, first_tensor
from ._output_layouts import PrefixTokens, layout_of, layout_of_item


class _FlopCounter(TorchDispatchMode):
    """Floating-point operations so far, in this thread.

    torch's own `FlopCounterMode` uses global hooks, which would also count what other
    threads run.
    """

    def __init__(self):
        from torch.utils.flop_counter import flop_registry  # slow, imports triton

        super().__init__()
        self.total = 0
        self._formulas = flop_registry

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = self._formulas.get(getattr(func, "_overloadpacket", None))
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out


class Recorder:
    """Hooks on every module of a network, and what they recorded.

    Parameters
    ----------
    network : Module
    batch_shape : tuple of int
        The shape of the batch of images that is run, or only the number of items.
    classifier : str or None
        The module that is the classifier, if it is not linear.
    keeps : sequence of str, default=()
        The layers whose output is kept.

    Attributes
    ----------
    layers : dict of str to Layer
    flops : _FlopCounter
        A context manager that has to be entered, too.
    linear : tuple of (str, Tensor, Tensor) or None
        Name, input and output of the linear layer (or `classifier`) that ran last.
    kept : dict of str to Tensor
        Copies of the outputs of the layers in `keeps`.
    """

    def __init__(self, network, batch_shape, classifier, keeps=()):
        self.network = network
        self.tokens = PrefixTokens.of(network)
        self.classifier = classifier
        self.n_items = batch_shape[0]
        self.size = tuple(batch_shape[2:])
        self.flops = _FlopCounter()
        self.layers = {}
        self.linear = None
        self.keeps = keeps
        self.kept = {}
        self._grids = set()
        self._stack = []
        self._clock = 0
        self._last_layout = "NCHW"
        self._last_sequence = None

    def __enter__(self):
        self._handles = []
        for name, module in self.network.named_modules():
            # Scripted modules have no hooks, so only their output is known.
            if name and not isinstance(module, torch.jit.ScriptModule):
                before = functools.partial(self._before, name)
                after = functools.partial(self._after, name)
                self._handles += [
                    module.register_forward_pre_hook(before),
                    module.register_forward_hook(after, with_kwargs=True),
                ]
        return self

    def __exit__(self, *error):
        for handle in self._handles:
            handle.remove()

    def _before(self, name, module, args):
        self._stack.append((name, self.flops.total))

    def _after(self, name, module, args, kwargs, output):
        _, start = self._stack.pop()
        self._clock += 1
        seen = self.layers.get(name)
        layer = Layer(
            name,
            type(module).__name__,
            n_parameters=sum(p.numel() for p in module.parameters()),
            cost=(self.flops.total - start) // self.n_items
            + (seen.cost if seen else 0),
            cumulative_cost=self.flops.total // self.n_items,
            order=self._clock,
            n_calls=(seen.n_calls if seen else 0) + 1,
            parent=self._stack[-1][0] if self._stack else "",
        )
        tensor = first_tensor(output)
        self.layers[name] = self.describe(layer, tensor, module)
        if name in self.keeps and tensor is not None:
            self.kept[name] = tensor.clone()  # the next layer may work in place
        if isinstance(module, nn.Linear) or name == self.classifier:
            self.linear = (name, first_tensor([*args, *kwargs.values()]), tensor)

    def describe(self, layer, tensor, module):
        """Return `layer` with the shape and layout of a tensor."""
        if (
            tensor is None
            or tensor.ndim == 0
            or tensor.shape[0] != self.n_items
            or not tensor.is_floating_point()
        ):
            return replace(layer, is_offered=False)
        shape = tuple(tensor.shape[1:])
        if self.size:
            layout = layout_of(shape, module, self.size, self._last_layout)
        else:
            layout = layout_of_item(shape, module, self._last_sequence)
            self._last_sequence = shape, layout
        layer = replace(layer, shape=shape, layout=layout, is_offered=True)
        if layout in ("NCHW", "NHWC"):
            self._last_layout = layout
            self._grids.add(layer.n_positions)
        if layout == "NLC":
            n_prefix, has_class = self.tokens.among(shape[0], self._grids)
            layer = replace(layer, n_prefix_tokens=n_prefix, has_class_token=has_class)
        return layer
