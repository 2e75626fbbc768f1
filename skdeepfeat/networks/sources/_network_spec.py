"""What is known of a network before any of its weights are read."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from ..._utils._preprocessing import Preprocessing
from .._copying import copy_network, own_copy
from ._weights_sources import ModuleWeights, Weights

__all__ = ["NetworkSpec"]


@dataclass(frozen=True, eq=False)
class NetworkSpec:
    """Architecture, weights and preprocessing of one network, all as data.

    Every source (embedded, torchvision, timm, the hub, a user's module) fills in this
    record; from here on they are treated alike.

    Attributes
    ----------
    name : str
        A name that `resolve_neck` accepts, for messages.
    model_name : str
        The short name that goes into feature names.
    architecture : dict of JSON types
        What `build` builds. Two specs with equal architectures build networks that
        compute the same function of the same weights.
    build : callable
        ``build() -> Module``, randomly initialised (or on the meta device, when called
        under it).
    install : callable
        ``install(file) -> (Module, tuple of str)``: a network with the weights
        of a `WeightsFile`, and the modules of its head where that had to be left
        random because the file has none or another one.
    weights : Weights
    preprocessing : Preprocessing
        For the size that is asked for.
    native_size : tuple of (int, int)
        Height and width the weights were made for, pixels. Stages are counted at this
        size, so that an image size does not renumber them.
    has_pre_logits : bool
        Whether the network has timm's ``forward_features`` and ``forward_head``.
    classifier : str or None
        The module whose input is the neck, where that is not the last linear layer.
    module : Module or None
        The user's own network.
    hub_config : dict or None
        What a hub repository says of the architecture.
    """

    name: str
    model_name: str
    architecture: dict[str, Any]
    build: Callable[[], nn.Module]
    install: Callable[[dict[str, Any]], tuple[nn.Module, tuple[str, ...]]]
    weights: Weights
    preprocessing: Preprocessing
    native_size: tuple[int, int]
    has_pre_logits: bool = False
    classifier: str | None = None
    module: nn.Module | None = None
    hub_config: dict[str, Any] | None = None

    def on_cpu(self):
        """Return a spec of the same network; a user's own is copied to the CPU."""
        if self.module is None:
            return self
        return self.with_module(copy_network(self.module, torch.device("cpu")))

    def snapshot(self):
        """Return a spec of the user's network as it is now, which nobody else changes.

        On the CPU, wherever the network is.
        """
        return self.with_module(own_copy(self.module, torch.device("cpu")))

    def with_module(self, module):
        """Return a spec of the same architecture with another module."""
        build = functools.partial(copy_network, module)
        return replace(self, module=module, build=build, weights=ModuleWeights(module))
