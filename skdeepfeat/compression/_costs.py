"""Parameters and multiply-adds of the layers of a network."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from ..networks import TensorTrainLinear


@dataclass
class Cost:
    """Those of one layer, for one image.

    Attributes
    ----------
    n_parameters, n_nonzero : int
    multiply_adds : int
    """

    n_parameters: int = 0
    n_nonzero: int = 0
    multiply_adds: int = 0


def layer_costs(model, images):
    """Return the `Cost` of each linear layer and convolution that runs, by its name.

    Parameters
    ----------
    model : Model
    images : Tensor of uint8, shape (n_images, 3, height, width)
    """
    costs = {}

    def hook_of(name):
        def hook(module, args, outputs):
            tensors = list(module.parameters())
            cost = costs.setdefault(name, Cost())
            cost.n_parameters = sum(one.numel() for one in tensors)
            cost.n_nonzero = sum(int(one.count_nonzero()) for one in tensors)
            cost.multiply_adds += _multiply_adds(module, outputs, len(images))

        return hook

    kinds = (nn.Linear, nn.Conv2d, TensorTrainLinear)
    handles = [
        module.register_forward_hook(hook_of(name))
        for name, module in model.network.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        with torch.inference_mode():
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return costs


def _multiply_adds(module, outputs, n_images):
    if isinstance(module, TensorTrainLinear):
        n_positions = outputs.numel() // module.out_features // n_images
        return n_positions * module.multiply_adds
    n_outputs = module.weight.shape[0]
    n_positions = outputs.numel() // n_outputs // n_images
    return n_positions * math.prod(module.weight.shape)
