"""The moving average of the weights, which generalises better than the last step's."""

import torch

__all__ = ["WeightAverage"]


class WeightAverage:
    """Exponential moving average of a module's parameters and buffers.

    Polyak and Juditsky 1992; in early steps the average is that of all so far, so that
    the weights it began with do not linger.

    Parameters
    ----------
    module : Module
    decay : float
        The weight of the past at each step, in [0, 1).
    """

    def __init__(self, module, decay):
        self.decay = decay
        self.n_updates = 0
        self.tensors = {k: v.detach().clone() for k, v in _tensors(module).items()}

    @torch.no_grad()
    def update(self, module):
        """Take in the weights after one step."""
        self.n_updates += 1
        decay = min(self.decay, self.n_updates / (10 + self.n_updates))
        floats, current = [], []
        for name, tensor in _tensors(module).items():
            if tensor.dtype.is_floating_point:
                floats.append(self.tensors[name])
                current.append(tensor.detach())
            else:
                self.tensors[name].copy_(tensor)
        torch._foreach_lerp_(floats, current, 1 - decay)

    @torch.no_grad()
    def swap(self, module):
        """Exchange the average's tensors for the module's."""
        for name, tensor in _tensors(module).items():
            held = self.tensors[name].clone()
            self.tensors[name].copy_(tensor)
            tensor.copy_(held)


def _tensors(module):
    return dict([*module.named_parameters(), *module.named_buffers()])
