"""A place in a network where features can be taken."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layer:
    """A module of a network and its output.

    Attributes
    ----------
    name : str
        The module's name, ``"neck"`` or ``"output"``.
    kind : str
        The module's class.
    shape : tuple of int
        The shape of its output, without the batch axis.
    layout : {"NCHW", "NHWC", "NLC", "NCL", "vector", "other"}
        ``"NCL"`` only for items other than images.
    n_prefix_tokens : int
        Tokens before those of the patches ("NLC" only).
    has_class_token : bool
    n_parameters : int
        Including the modules in it.
    cost : int
        Floating-point operations for one image, including the modules in it.
    cumulative_cost : int
        Those of the whole network until the end of this module.
    order : int
        Position in the order of execution. Of a module that runs several times, the
        last run and its output count.
    n_calls : int
        How often it runs in one pass.
    parent : str
        The nearest module around it that runs, ``""`` for the network itself.
    is_offered : bool
        Whether its output has one row of floating-point numbers for each image.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    layout: str = "other"
    n_prefix_tokens: int = 0
    has_class_token: bool = False
    n_parameters: int = 0
    cost: int = 0
    cumulative_cost: int = 0
    order: int = 0
    n_calls: int = 0
    parent: str = ""
    is_offered: bool = False

    @property
    def n_positions(self):
        """The number of positions of a map or of patch tokens; 0 for other outputs."""
        if self.layout == "NCHW":
            return self.shape[1] * self.shape[2]
        if self.layout == "NHWC":
            return self.shape[0] * self.shape[1]
        return self.shape[0] - self.n_prefix_tokens if self.layout == "NLC" else 0


def first_tensor(output):
    """Return the first tensor in a module's output, or None."""
    if isinstance(output, torch.Tensor):
        return output
    if isinstance(output, Mapping):
        output = list(output.values())
    if not isinstance(output, (list, tuple)):
        return None
    tensors = map(first_tensor, output)
    return next((tensor for tensor in tensors if tensor is not None), None)
