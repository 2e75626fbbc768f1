"""A network before any of its weights are read."""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..._utils._preprocessing import Preprocessing
from ..._utils._random import seeded
from .._modules import copy_network
from ._weights import Weights


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkSpec:
    """Architecture, weights and preprocessing of one network.

    Every source of networks returns this record. From here on, all are treated alike.

    Attributes
    ----------
    name : str
        A name that `resolve_neck` accepts, for messages.
    model_name : str
        The short name in feature names.
    architecture : dict of JSON types
        What `build` builds. Specs with equal architectures build networks that compute
        the same function of the same weights.
    build : callable
        ``build() -> Module``, with random weights, or on the meta device if called
        under it.
    install : callable or None
        ``install(file) -> (Module, tuple of str)``: a network with the weights of a
        `WeightsFile`, and the modules of its head that stay random because the file has
        none that fits. None for a user's own network.
    weights : Weights or None
        None for a user's own network.
    preprocessing : Preprocessing
        At the wanted size.
    native_size : tuple of (int, int)
        Height and width for which the weights were made, pixels. Stages are counted at
        this size, so `image_size` does not renumber them.
    has_pre_logits : bool
        Whether the network has timm's ``forward_features`` and ``forward_head``.
    classifier : str or None
        The module whose input is the neck, if it is not the last linear layer.
    module : Module or None
        The user's own network.
    hub_config : dict or None
        What a hub repository says about the architecture.
    takes_items : bool
        Whether it takes what a user's `collate` makes of items, and not images. Its
        `preprocessing` is not used.
    """

    name: str
    model_name: str
    architecture: dict[str, Any]
    build: Callable[[], nn.Module]
    install: Callable[[Any], tuple[nn.Module, tuple[str, ...]]] | None = None
    weights: Weights | None = None
    preprocessing: Preprocessing
    native_size: tuple[int, int]
    has_pre_logits: bool = False
    classifier: str | None = None
    module: nn.Module | None = None
    hub_config: dict[str, Any] | None = None
    takes_items: bool = False

    def __getstate__(self):
        if self.module is None:
            return vars(self)
        # The process that unpickles it may not have the device of a user's network.
        return vars(self.with_module(copy_network(self.module, torch.device("cpu"))))

    def snapshot(self):
        """Return a spec of a private copy of the user's network, on the CPU."""
        return self.with_module(self.build_on_cpu())

    def with_module(self, module):
        """Return a spec of the same architecture with another module."""
        return replace(
            self,
            module=module,
            build=functools.partial(copy_network, module),
            install=None,
            weights=None,
        )

    def build_empty(self, constants_on_cpu=True):
        """Return the network with tensors that have a shape but no values.

        Parameters
        ----------
        constants_on_cpu : bool, default=True
            Whether numbers that are read while the network is built have values.
        """
        if self.module is not None:
            return copy_network(self.module, torch.device("meta"))
        constants = _ConstantsOnCpu() if constants_on_cpu else contextlib.nullcontext()
        with seeded(0), torch.device("meta"), constants:
            return self.build().to("meta")

    def build_on_cpu(self):
        """Return the network on the CPU, with any weights.

        Nothing is shared with a user's network, as it may change its buffers when run.
        """
        if self.module is not None:
            return copy_network(self.module, torch.device("cpu"), owned=True)
        with seeded(0):
            return self.build()


class _ConstantsOnCpu(TorchFunctionMode):
    """Create constants on the CPU, so that they can be read.

    torchvision computes the widths of its RegNets from them, older timm the rates of
    stochastic depth.
    """

    _FACTORIES = (torch.arange, torch.linspace, torch.tensor)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in self._FACTORIES:
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)
