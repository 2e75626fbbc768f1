"""How much the channels of a network matter, and its single weights.

`CRITERIA` is a registry of criteria for channels. All look at what the layers read that
take the channels, and pretend that a channel is zero there.
"""

import numpy as np
import torch

from .._utils._hooks import forward_hooks
from ..networks import is_convolution
from ._layers import batches_of

# With more classes, this many are drawn from their probabilities for each image.
_MAX_CLASSES = 10
_N_DRAWN = 3
# Random projections of features, which stand for their error.
_N_PROJECTIONS = 4


def likelihood_terms(outputs, task, rng):
    """Yield parts of the Gauss-Newton matrix of a loss.

    The matrix is the expected outer product of the gradients of the log-likelihood, if
    the targets are drawn from what the network says. It is the sum over the parts of
    ``weights * outer(gradient of values)``.

    Parameters
    ----------
    outputs : Tensor, shape (n_images, n_outputs)
    task : {"single", "multilabel", "regression", "features"}
        One label, several, numbers, or many features of equal importance.
    rng : numpy.random.Generator

    Yields
    ------
    weights : Tensor, shape (n_images,)
    values : Tensor, shape (n_images,)
    """
    n, n_outputs = outputs.shape
    ones = torch.ones(n)
    if task == "single":
        logs = outputs.log_softmax(1)
        chances = logs.detach().exp()
        if n_outputs <= _MAX_CLASSES:
            yield from zip(chances.T, logs.T, strict=True)
            return
        for _ in range(_N_DRAWN):
            drawn = rng.random((n, 1))
            classes = (chances.double().cumsum(1).numpy() < drawn).sum(1)
            classes = np.minimum(classes, n_outputs - 1)
            yield ones / _N_DRAWN, logs[torch.arange(n), torch.from_numpy(classes)]
    elif task == "multilabel":
        chances = outputs.detach().sigmoid()
        yield from zip((chances * (1 - chances)).T, outputs.T, strict=True)
    elif task == "regression" and n_outputs <= _MAX_CLASSES:
        for values in outputs.T:
            yield ones, values
    else:
        for _ in range(_N_PROJECTIONS):
            direction = rng.standard_normal(n_outputs).astype(np.float32)
            yield ones / _N_PROJECTIONS, outputs @ torch.from_numpy(direction)


# -- Channels


def channel_importances(model, groups, pixels, targets, loss, task, criterion):
    """Return how much each channel of some groups matters.

    Parameters
    ----------
    model : Module
        From images to outputs, in evaluation mode; with a ``body``.
    groups : list of ChannelGroup
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
    targets : Tensor or None
    loss : callable or None
        ``loss(outputs, targets) -> Tensor of shape (n_images,)``. None for features.
    task : str
        See `likelihood_terms`.
    criterion : str
        A key of `CRITERIA`.

    Returns
    -------
    list of Tensor, shape (n_channels,)
        Within a group they can be compared; divided by the norm of the group, between
        groups as well.
    """
    measure, needs_images = CRITERIA[criterion]
    network = model.body.network
    if not needs_images:
        found = [measure(network, group) for group in groups]
    else:
        rng = np.random.default_rng(0)
        found = [torch.zeros(group.n_channels, dtype=torch.float64) for group in groups]
        start = 0
        for images in batches_of(pixels):
            part = slice(start, start + len(images))
            start = part.stop
            inputs = _Inputs(network, groups)
            with inputs.observed(), torch.enable_grad():
                # The gradient flows from the images, because no weight requires one.
                outputs = model((images.float() / 255).requires_grad_())
                wanted = None if targets is None else targets[part]
                sums = measure(inputs, outputs, wanted, loss, task, rng)
            for total, values in zip(found, sums, strict=True):
                total += values.detach().double()
    found = [one.double().nan_to_num(0.0, posinf=0.0) for one in found]
    return [one / (one.norm() or 1) for one in found]


class _Inputs:
    """What the consumers of groups have read in the last pass."""

    def __init__(self, network, groups):
        self.groups = groups
        self.read = {}
        self._consumers = {
            name: network.get_submodule(name)
            for group in groups
            for name, _ in group.consumers
        }

    def observed(self):
        """Keep what is read in the body of a ``with``."""
        return forward_hooks(self._keep, self._consumers.items())

    def _keep(self, name, module, args, outputs):
        self.read[name] = args[0]

    def per_channel(self, values):
        """Return for each group the sum over its consumers, (n_images, n_channels).

        Parameters
        ----------
        values : dict of str to Tensor
            For each consumer, of the shape of what it has read.
        """
        found = []
        for group in self.groups:
            total = 0
            for name, n_each in group.consumers:
                part = values[name]
                if is_convolution(self._consumers[name]):
                    part = part.movedim(1, -1)
                part = part.reshape(len(part), -1, group.n_channels, n_each)
                total = total + part.sum((1, 3))
            found.append(total)
        return found

    def gradients_times_values(self, values):
        """Return for each group how much `values` change without a channel."""
        gradients = torch.autograd.grad(
            values.sum(), list(self.read.values()), retain_graph=True,
            allow_unused=True, materialize_grads=True,
        )  # fmt: skip
        pairs = zip(self.read.items(), gradients, strict=True)
        return self.per_channel({name: read * slope for (name, read), slope in pairs})


def _taylor(inputs, outputs, targets, loss, task, rng):
    """First-order change of the loss of each image (Molchanov et al. 2017)."""
    if loss is not None:
        changes = inputs.gradients_times_values(loss(outputs, targets))
        return [one.abs().sum(0) for one in changes]
    return [one.sqrt() for one in _obd(inputs, outputs, targets, loss, task, rng)]


def _obd(inputs, outputs, targets, loss, task, rng):
    """Half the second derivative with respect to a factor of the channel."""
    total = [0.0] * len(inputs.groups)
    for weights, values in likelihood_terms(outputs, task, rng):
        for k, change in enumerate(inputs.gradients_times_values(values)):
            total[k] = total[k] + (weights[:, None] * change.square()).sum(0) / 2
    return total


def _apoz(inputs, outputs, targets, loss, task, rng):
    """Share of positions that are not zero (Hu et al. 2016), or the mean size."""
    read = inputs.read
    active = inputs.per_channel({name: (x != 0).float() for name, x in read.items()})
    sizes = inputs.per_channel({name: x.detach().abs() for name, x in read.items()})
    n_zeros = inputs.per_channel({name: (x == 0).float() for name, x in read.items()})
    return [
        (share if bool(zeros.any()) else size).sum(0)
        for share, size, zeros in zip(active, sizes, n_zeros, strict=True)
    ]


def _magnitude(network, group):
    """Norm of the weights that make a channel."""
    return sum(
        network.get_submodule(name).weight.detach().double().flatten(1).norm(dim=1)
        for name in group.producers
    )


# A new criterion is a function here, and a flag whether it uses images.
CRITERIA = {
    "taylor": (_taylor, True),
    "obd": (_obd, True),
    "apoz": (_apoz, True),
    "magnitude": (_magnitude, False),
}


# -- Single weights


def weight_curvatures(model, parameters, pixels, task):
    """Return the Gauss-Newton diagonal of the mean loss, for each of some parameters.

    Parameters
    ----------
    model : Module
        From images to outputs, in evaluation mode.
    parameters : list of Parameter
        None of them requires a gradient.
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
    task : str
        See `likelihood_terms`. The matrix is that of the cross-entropy, of binary ones,
        or of half the squared error.

    Returns
    -------
    list of Tensor
        Of the shapes of the parameters.
    """
    rng = np.random.default_rng(0)
    found = [torch.zeros_like(one, requires_grad=False) for one in parameters]
    try:
        for one in parameters:
            one.requires_grad_(True)
        # Image by image: the squares of the gradients are added, not the gradients.
        for k in range(len(pixels)):
            [images] = batches_of(pixels[k : k + 1])
            with torch.enable_grad():
                outputs = model(images)
                for weights, values in likelihood_terms(outputs, task, rng):
                    gradients = torch.autograd.grad(
                        values.sum(), parameters, retain_graph=True,
                        allow_unused=True, materialize_grads=True,
                    )  # fmt: skip
                    for total, gradient in zip(found, gradients, strict=True):
                        total += float(weights[0]) * gradient.square()
    finally:
        for one in parameters:
            one.requires_grad_(False)
    return [one / len(pixels) for one in found]
