"""How much the channels of a network matter, and its single weights.

`CRITERIA` is a registry of criteria for channels. All look at what the layers read that
take the channels, and pretend that a channel is zero there.
"""

import numpy as np
import torch

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


def channel_importances(model, groups, pixels, targets, loss, task, criterion, seed=0):
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
    seed : int, default=0

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
        rng = np.random.default_rng(seed)
        found = [torch.zeros(group.n_channels, dtype=torch.float64) for group in groups]
        start = 0
        for images in batches_of(pixels):
            part = slice(start, start + len(images))
            start = part.stop
            with _InputsOf(network, groups) as inputs, torch.enable_grad():
                # The gradient flows from the images, because no weight requires one.
                outputs = model((images.float() / 255).requires_grad_())
                wanted = None if targets is None else targets[part]
                sums = measure(inputs, outputs, wanted, loss, task, rng)
            for total, values in zip(found, sums, strict=True):
                total += values.detach().double()
    return [one / (one.norm() or 1) for one in map(_finite, found)]


def _finite(values):
    return values.double().nan_to_num(0.0, posinf=0.0)


class _InputsOf:
    """Keeps what the consumers of groups read, for the body of a ``with``."""

    def __init__(self, network, groups):
        self.groups = groups
        self.seen = {}
        self._network = network

    def __enter__(self):
        self._handles = [
            self._network.get_submodule(name).register_forward_pre_hook(
                self._hook(name)
            )
            for name in {name for group in self.groups for name, _ in group.consumers}
        ]
        return self

    def __exit__(self, *error):
        for handle in self._handles:
            handle.remove()

    def _hook(self, name):
        def keep(module, args):
            self.seen[name] = args[0], is_convolution(module)

        return keep

    def per_channel(self, values_of):
        """Return for each group the sum over its consumers, (n_images, n_channels).

        Parameters
        ----------
        values_of : callable
            ``values_of(name, read)`` returns a tensor of the shape of what was read.
        """
        found = []
        for group in self.groups:
            total = 0
            for name, n_each in group.consumers:
                read, is_map = self.seen[name]
                values = values_of(name, read)
                values = values.movedim(1, -1) if is_map else values
                values = values.reshape(len(values), -1, group.n_channels, n_each)
                total = total + values.sum((1, 3))
            found.append(total)
        return found

    def gradients_times_values(self, values):
        """Return for each group how much `values` change without a channel."""
        names = list(self.seen)
        reads = [self.seen[name][0] for name in names]
        gradients = torch.autograd.grad(
            values.sum(), reads, retain_graph=True, allow_unused=True
        )
        by_name = dict(zip(names, gradients, strict=True))

        def product(name, read):
            gradient = by_name[name]
            return read * (0 if gradient is None else gradient)

        return self.per_channel(product)


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
    active = inputs.per_channel(lambda name, read: (read != 0).float())
    sizes = inputs.per_channel(lambda name, read: read.detach().abs())
    n_zeros = inputs.per_channel(lambda name, read: (read == 0).float())
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


def weight_curvatures(model, parameters, pixels, task, seed=0):
    """Return the Gauss-Newton diagonal of the mean loss, for each of some parameters.

    Parameters
    ----------
    model : Module
        From images to outputs, in evaluation mode.
    parameters : list of Parameter
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
    task : str
        See `likelihood_terms`. The matrix is that of the cross-entropy, of binary ones,
        or of half the squared error.
    seed : int, default=0

    Returns
    -------
    list of Tensor
        Of the shapes of the parameters.
    """
    rng = np.random.default_rng(seed)
    found = [torch.zeros_like(one, requires_grad=False) for one in parameters]
    needed = [one.requires_grad for one in parameters]
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
                        values.sum(), parameters, retain_graph=True, allow_unused=True
                    )
                    for total, gradient in zip(found, gradients, strict=True):
                        if gradient is not None:
                            total += float(weights[0]) * gradient.square()
    finally:
        for one, before in zip(parameters, needed, strict=True):
            one.requires_grad_(before)
    return [one / len(pixels) for one in found]
