"""The layers of a network that can be replaced, and how they are used."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.utils import parametrize

from .._utils._hooks import forward_hooks
from ..networks import is_convolution, is_linear

_BATCH_SIZE = 32

# The covariance of the weights counts as this many positions for each response.
_PRIOR_POSITIONS = 0.02

# Inputs of a convolution that are kept, to measure errors with.
_MAX_SAMPLE = 2**21


@dataclass(eq=False)
class LayerUse:
    """A layer and what went through it.

    Attributes
    ----------
    name : str
    layer : Module
    n_inputs, n_outputs : int
        Positions for one image, of the input and of the output. 1 for a vector.
    n_columns : int
        Positions after a kernel has gone over the columns only.
    total, products : Tensor of float64
        Sum of the responses over `n` positions, and of their outer products.
    sample : list of Tensor
        Some inputs.
    """

    name: str
    layer: nn.Module
    n_inputs: int = 0
    n_outputs: int = 0
    n_columns: int = 0
    n: int = 0
    total: torch.Tensor | float = 0.0
    products: torch.Tensor | float = 0.0
    sample: list = field(default_factory=list)

    @property
    def kernel(self):
        """Height and width of the kernel."""
        return getattr(self.layer, "kernel_size", (1, 1))

    @property
    def multiply_adds(self):
        """Those of one image."""
        return self.n_outputs * self.layer.weight.numel()

    @property
    def n_parameters(self):
        """Those of the layer."""
        return sum(parameter.numel() for parameter in self.layer.parameters())

    def principal_components(self):
        """Return mean, eigenvectors and eigenvalues of the responses, largest first.

        With few positions, some directions have no variance just because no image
        happened to vary there. So a little of the covariance is added that inputs
        without correlation would have.
        """
        mean = self.total / self.n
        covariance = self.products / self.n - torch.outer(mean, mean)
        weight = self.layer.weight.detach().double().flatten(1)
        prior = weight @ weight.T
        prior *= covariance.trace() / prior.trace().clamp(min=1e-300)
        own = self.n / (self.n + _PRIOR_POSITIONS * len(mean))
        covariance = own * covariance + (1 - own) * prior
        values, vectors = torch.linalg.eigh(covariance)
        return mean, vectors.flip(1), values.flip(0).clamp(min=0)

    def count(self, inputs, outputs):
        """Count the positions of a call."""
        n_images = len(inputs)
        if inputs.ndim == 4 and is_convolution(self.layer):
            self.n_inputs += math.prod(inputs.shape[2:])
            self.n_outputs += math.prod(outputs.shape[2:])
            self.n_columns += outputs.shape[2] * inputs.shape[3]
        else:
            n_positions = outputs.numel() // outputs.shape[-1] // n_images
            self.n_inputs += n_positions
            self.n_outputs += n_positions
            self.n_columns += n_positions

    def record(self, inputs, outputs):
        """Add the responses of a call to the statistics."""
        if is_convolution(self.layer):
            outputs = outputs.movedim(1, -1)
        rows = outputs.reshape(-1, outputs.shape[-1]).double()
        self.n += len(rows)
        self.total = self.total + rows.sum(0)
        self.products = self.products + rows.T @ rows
        if self.kernel != (1, 1):
            kept = sum(one.numel() for one in self.sample)
            n_more = (_MAX_SAMPLE - kept) // max(1, inputs[0].numel())
            if n_more > 0 or not self.sample:
                self.sample.append(inputs[: max(1, n_more)].clone())


def batches_of(pixels):
    """Yield stored images as tensors that a body takes.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
    """
    for start in range(0, len(pixels), _BATCH_SIZE):
        part = torch.from_numpy(pixels[start : start + _BATCH_SIZE])
        yield part.permute(0, 3, 1, 2)


def owners_of_parameters(network, remove_duplicate=True):
    """Return which modules have each parameter.

    Parameters
    ----------
    network : Module
    remove_duplicate : bool, default=True
        Whether a module with several names counts once.

    Returns
    -------
    dict of int to list of (str, Module, str)
        By the `id` of the parameter: the name of the module, the module, and the name
        that the parameter has in it.
    """
    owners = defaultdict(list)
    for name, module in network.named_modules(remove_duplicate=remove_duplicate):
        for key, parameter in module.named_parameters(recurse=False):
            owners[id(parameter)].append((name, module, key))
    return owners


@torch.inference_mode()
def runs(network, images):
    """Return whether a network takes images. It may raise anything."""
    try:
        network(images)
        return True
    except Exception:
        return False


def replaceable_layers(body, images):
    """Return the layers that can be replaced by others with the same outputs.

    These are linear layers and convolutions without groups that the network calls, and
    whose weights belong to them alone.

    Parameters
    ----------
    body : TrainableNeck
        In evaluation mode.
    images : Tensor of uint8, shape (n_images, 3, height, width)

    Returns
    -------
    list of LayerUse
        In order of execution.
    """
    network = body.network
    owners = owners_of_parameters(network, remove_duplicate=False)
    uses = [
        LayerUse(name, module)
        for name, module in network.named_modules()
        if (is_linear(module) or (is_convolution(module) and module.groups == 1))
        and not (module._forward_hooks or module._forward_pre_hooks)
        and not parametrize.is_parametrized(module)
        and len(owners[id(module.weight)]) == 1
    ]
    called = observe_layers(body, uses, [images], LayerUse.count)
    return _without_readers(body, called, images)


def observe_layers(body, uses, batches, observe):
    """Run a body, and call ``observe(use, inputs, outputs)`` for each call of a layer.

    Returns
    -------
    list of LayerUse
        Those that were called, in order of their first call.
    """
    called = {}

    def note(use, module, args, outputs):
        called[use.name] = use
        observe(use, args[0], outputs)

    layers = [(use, use.layer) for use in uses]
    with torch.inference_mode(), forward_hooks(note, layers):
        for images in batches:
            body(images)
    return list(called.values())


def _without_readers(body, uses, images):
    """Return the layers whose weights no other module reads.

    Some networks compute with the weight of a layer instead of calling it, which fails
    if the layer is inside another module.
    """

    def runs_with(wrapped):
        for use in wrapped:
            body.network.set_submodule(use.name, nn.Sequential(use.layer))
        try:
            return runs(body, images)
        finally:
            for use in wrapped:
                body.network.set_submodule(use.name, use.layer)

    if runs_with(uses):
        return uses
    return [use for use in uses if runs_with([use])]
