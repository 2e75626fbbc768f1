"""Parameters and multiply-adds of the layers of a network."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from .._utils._hooks import forward_hooks
from ..networks import TensorTrainLinear, multiply_adds_of_train


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

    def add(name, module, args, outputs):
        tensors = list(module.parameters())
        cost = costs.setdefault(name, Cost())
        cost.n_parameters = sum(one.numel() for one in tensors)
        cost.n_nonzero = sum(int(one.count_nonzero()) for one in tensors)
        cost.multiply_adds += _multiply_adds(module, outputs, len(images))

    kinds = (nn.Linear, nn.Conv2d, TensorTrainLinear)
    modules = model.network.named_modules()
    counted = [named for named in modules if isinstance(named[1], kinds)]
    with torch.inference_mode(), forward_hooks(add, counted):
        model(images)
    return costs


def _multiply_adds(module, outputs, n_images):
    if isinstance(module, TensorTrainLinear):
        n_positions = outputs.numel() // module.out_features // n_images
        return n_positions * multiply_adds_of_train(module.cores)
    n_outputs = module.weight.shape[0]
    n_positions = outputs.numel() // n_outputs // n_images
    return n_positions * math.prod(module.weight.shape)
