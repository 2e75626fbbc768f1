"""Units: one channel of a layer, where it is strongest, and what it depends on."""

import math

import torch

from .._utils._parameter_errors import choice_error, is_int
from ._function_modes import Connections, RectifiedSignals
from ._network_pass import batches, check_finite, opened_network
from ._positions import to_maps


class Unit:
    """One channel of a layer.

    Parameters
    ----------
    neck : networks.Neck
        Of the network; its layer does not matter.
    layer : str or int
    feature : int

    Attributes
    ----------
    neck : networks.Neck
        The network up to the layer.
    layer : Layer
    feature : int

    Raises
    ------
    TypeError, ValueError
        If the layer has no such channel.
    """

    def __init__(self, neck, layer, feature):
        if layer is None or isinstance(layer, (list, tuple)):
            wanted = "one layer, by its name or a stage's number"
            raise choice_error("layer", wanted, layer, error=TypeError)
        self.neck = neck.at_layer(layer)
        [output] = self.neck.outputs
        self.layer, self.feature = output.source, feature
        n = output.n_features
        if not is_int(feature) or not 0 <= feature < n:
            wanted = f"an int from 0 to {n - 1} for layer {self.layer.name!r}"
            error = ValueError if is_int(feature) else TypeError
            raise choice_error("feature", wanted, feature, error=error)

    @property
    def has_positions(self):
        """Whether the layer is a module with more than one position."""
        is_module = self.layer.name in self.neck.probe.layers
        return is_module and self.layer.n_positions > 1

    def activations(self, network, images):
        """Return features, and the values of the unit at each position.

        Parameters
        ----------
        network : networks.TrainableNeck
            That of `neck`.
        images : Tensor

        Returns
        -------
        features : Tensor, shape (n_images, n_features)
        values : Tensor, shape (n_images, height, width)
        """
        if not self.has_positions:
            features = network(images)
            return features, features[:, self.feature, None, None]
        name = self.layer.name
        features, found = network.forward_with_maps(images, [name])
        return features, to_maps(found[name], self.layer, self.neck)[:, self.feature]


def strongest_positions(values):
    """Return the row and column of the largest value of each image, shape (n, 2)."""
    places = values.detach().flatten(1).argmax(1)
    return torch.stack(torch.unravel_index(places, values.shape[1:]), 1).cpu().numpy()


def project(unit, settings, pixels, indices, guided):
    """Yield (some of the indices, the signals of a deconvnet in their input).

    Parameters
    ----------
    unit : Unit
    settings : ExtractionSettings
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
    indices : ndarray of int
    guided : bool

    Yields
    ------
    part : ndarray of int
    signals : ndarray of float32, shape (len(part), height, width, 3)
    """
    neck = unit.neck
    with opened_network(neck, settings) as (network, device):
        std = torch.tensor(neck.preprocessing.std, device=device).reshape(1, 3, 1, 1)
        for part, images in batches(pixels, indices, device):
            images = images.float().div(255).requires_grad_()
            mode = RectifiedSignals(guided, neck.spec.name)
            with torch.enable_grad():
                with mode:
                    features, values = unit.activations(network, images)
                check_finite(features, part, neck, settings)
                # The same position as that of `strongest_positions`.
                strongest = values.flatten(1).max(1).values
                [signal] = torch.autograd.grad(strongest.sum(), images)
            # By the normalized input, which the network sees.
            signal = (signal * std).permute(0, 2, 3, 1)
            yield part, signal.cpu().numpy()


def receptive_fields(unit, positions):
    """Return the part of the input that is connected with a unit at some positions.

    The weights do not matter: those of batch norms begin at 0 in many networks.

    Parameters
    ----------
    unit : Unit
    positions : sequence of (int, int)
        Row and column.

    Returns
    -------
    list of tuple of int
        (top, left, bottom, right) in pixels of the input. Bottom and right are
        excluded.
    """
    network = unit.neck.trainable().requires_grad_(False).double()
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        # Of the size that keeps the size of the values from layer to layer.
        drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.copy_(drawn / math.sqrt(max(1, weight[:1].numel())))
    size = unit.neck.preprocessing.crop
    image = torch.rand(1, 3, *size, generator=generator, dtype=torch.float64)
    image.requires_grad_()
    with torch.enable_grad(), Connections():
        _, values = unit.activations(network, image)
    known = {}
    for position in {tuple(map(int, place)) for place in positions}:
        value = values[0, position[0], position[1]]
        [slope] = torch.autograd.grad(value, image, retain_graph=True)
        reached = (slope[0] != 0).any(0)
        rows = torch.nonzero(reached.any(1)).flatten().tolist()
        columns = torch.nonzero(reached.any(0)).flatten().tolist()
        # A unit that is connected with no pixel, such as a learned constant.
        rows, columns = rows or [0, size[0] - 1], columns or [0, size[1] - 1]
        known[position] = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
    return [known[tuple(map(int, place))] for place in positions]
