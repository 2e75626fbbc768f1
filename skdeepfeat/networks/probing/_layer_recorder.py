"""Recording every module of a network during one pass, and what its output is."""

import contextlib
import functools
from dataclasses import replace

import torch
from torch import nn
from torch.nn.modules import batchnorm, conv, pooling
from torch.utils._python_dispatch import TorchDispatchMode

from .._modules import attribute_of
from ..running._layer import Layer, first_tensor

_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")
# Of signals, images and volumes.
_CHANNELS_FIRST = (
    conv._ConvNd,
    batchnorm._BatchNorm,
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
    pooling._AdaptiveAvgPoolNd,
)


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
    linear : tuple of (str, Tensor, Tensor) or None
        Name, input and output of the linear layer (or `classifier`) that ran last.
    kept : dict of str to Tensor
        Copies of the outputs of the layers in `keeps`.
    """

    def __init__(self, network, batch_shape, classifier, keeps=()):
        self.network = network
        self._n_prefix, self._has_class = _prefix_tokens_of(network)
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
        self._stop = contextlib.ExitStack()
        for name, module in self.network.named_modules():
            # Scripted modules have no hooks, so only their output is known.
            if name and not isinstance(module, torch.jit.ScriptModule):
                before = functools.partial(self._before, name)
                after = functools.partial(self._after, name)
                self._stop.enter_context(module.register_forward_pre_hook(before))
                after = module.register_forward_hook(after, with_kwargs=True)
                self._stop.enter_context(after)
        self._stop.enter_context(self.flops)
        return self

    def __exit__(self, *error):
        self._stop.close()

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
            or (self.size and 0 in tensor.shape)
            or tensor.layout != torch.strided
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
            n_prefix, has_class = self._prefix_among(shape[0])
            layer = replace(layer, n_prefix_tokens=n_prefix, has_class_token=has_class)
        return layer

    def _prefix_among(self, n_tokens):
        """Return how many prefix tokens a layer has, and whether it has a class token.

        Not every layer of a network has them: the class token is added after the
        patches are embedded.
        """
        n, has_class, grids = self._n_prefix, self._has_class, self._grids
        if n_tokens == n:
            return 0, has_class
        without = n_tokens in grids and n_tokens - n not in grids
        if without or n_tokens < n:
            return 0, False
        return n, has_class


def _prefix_tokens_of(network):
    """Return how many prefix tokens a network has, and whether one is a class token.

    They precede those of the patches: a class token first, then distillation and
    register tokens. timm's attribute tells, or the names of parameters.
    """
    own = {name.rpartition(".")[2] for name, _ in network.named_parameters()}
    has_class = any(name in own for name in _CLASS_TOKENS)
    n = attribute_of(network, "num_prefix_tokens")
    if not isinstance(n, int):
        n = has_class + ("dist_token" in own)
    return n, has_class and n > 0


def layout_of(shape, module, size, last):
    """Return the layout of an output.

    Parameters
    ----------
    shape : tuple of int
        Without the batch axis.
    module : Module
        The module that computed it.
    size : tuple of (int, int)
        Height and width of the image. A map has the same ratio, up to rounding.
    last : {"NCHW", "NHWC"}
        The layout of the map before, which decides if the shape does not.

    Returns
    -------
    {"NCHW", "NHWC", "NLC", "vector", "other"}
    """
    if len(shape) <= 1:
        return "vector"
    if len(shape) == 2:
        return "NLC"
    if len(shape) > 3:
        return "other"
    if isinstance(module, _CHANNELS_FIRST):
        return "NCHW"
    if isinstance(module, nn.Linear) or type(module) is nn.LayerNorm:
        return "NHWC"
    first, second = _is_grid(shape[1:], size), _is_grid(shape[:2], size)
    if first != second:
        return "NCHW" if first else "NHWC"
    return last if first else "NCHW"


def _is_grid(grid, size):
    (rows, columns), (height, width) = grid, size
    # Each side may be rounded up or down, so the ratio may be off by one row.
    return (
        rows <= height
        and columns <= width
        and abs(rows * width - columns * height) <= max(height, width)
        and (rows == columns or height != width)
    )


def layout_of_item(shape, module, last):
    """Return the layout of an output for items that are not images.

    Parameters
    ----------
    shape : tuple of int
        Without the batch axis.
    module : Module
        The module that computed it.
    last : tuple of (tuple of int, str) or None
        Shape and layout of the output before, which decide if the shape is the same and
        the module does not tell.

    Returns
    -------
    {"NCHW", "NHWC", "NLC", "NCL", "vector", "other"}
    """
    if len(shape) <= 1:
        return "vector"
    if len(shape) > 3:
        return "other"
    is_linear = isinstance(module, (nn.Linear, nn.LayerNorm, nn.Embedding, nn.RNNBase))
    if not is_linear and not isinstance(module, _CHANNELS_FIRST):
        if last is not None and last[0] == shape:
            return last[1]
        return "NLC" if len(shape) == 2 else "NCHW"
    if len(shape) == 2:
        return "NLC" if is_linear else "NCL"
    return "NHWC" if is_linear else "NCHW"
