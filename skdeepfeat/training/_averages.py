"""The moving average of the weights, which generalizes better than the last step's."""

import torch
from torch import nn

from ._state import named_tensors


class WeightAverage:
    """Exponential moving average of the parameters and buffers of a module.

    Polyak and Juditsky 1992. The decay is smaller in early steps, so that the initial
    weights do not linger. `torch.optim.swa_utils.AveragedModel` has no such start: it
    begins with the weights after the first step, and averages counters as well.

    Parameters
    ----------
    module : Module
    decay : float
        The weight of the past at each step, in [0, 1).
    """

    def __init__(self, module, decay):
        self.decay = decay
        self.n_updates = 0
        tensors = named_tensors(module)
        self.tensors = {k: v.detach().clone() for k, v in tensors.items()}

    @torch.no_grad()
    def update(self, module):
        """Include the weights after one step."""
        self.n_updates += 1
        decay = min(self.decay, self.n_updates / (10 + self.n_updates))
        floats, current = [], []
        for name, tensor in named_tensors(module).items():
            if isinstance(tensor, nn.Parameter) and not tensor.requires_grad:
                continue  # frozen, so it equals its average
            if tensor.dtype.is_floating_point:
                floats.append(self.tensors[name])
                current.append(tensor.detach())
            else:
                self.tensors[name].copy_(tensor)
        torch._foreach_lerp_(floats, current, 1 - decay)

    @torch.no_grad()
    def swap(self, module):
        """Exchange the tensors of the average and of the module."""
        for name, tensor in named_tensors(module).items():
            averaged = self.tensors[name].clone()
            self.tensors[name].copy_(tensor)
            tensor.copy_(averaged)
