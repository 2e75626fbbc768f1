"""The network of an autoencoder: an encoder, and a decoder that mirrors it."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

from .._utils._random import seeded

# scikit-learn's names, as in MLPClassifier. Each has the gain that keeps the variance
# from layer to layer (torch.nn.init.calculate_gain).
ACTIVATIONS = {
    "identity": (nn.Identity(), 1.0),
    "logistic": (torch.sigmoid, 1.0),
    "tanh": (torch.tanh, 5 / 3),
    "relu": (F.relu, 2**0.5),
}


class MirroredNetwork(nn.Module):
    """Dense layers down to a code, and the same sizes up again.

    Parameters
    ----------
    sizes : sequence of int
        Number of features, then of the units of each layer of the encoder.
    activation, code_activation : str
        See `ACTIVATIONS`. The last layer of the decoder has none.
    tied_weights : bool
        Whether layers of the decoder have the transposed weights of the encoder.
    seed : int
    """

    def __init__(self, sizes, activation, code_activation, tied_weights, seed):
        super().__init__()
        self.activations = [activation] * (len(sizes) - 2) + [code_activation]
        pairs = list(itertools.pairwise(sizes))
        with seeded(seed):
            self.encoder = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
            self.decoder = nn.ModuleList(nn.Linear(*pair[::-1]) for pair in pairs)
            layers = [*self.encoder, *self.decoder]
            names = [*self.activations, *self._outer_names()]
            for layer, name in zip(layers, names, strict=True):
                nn.init.xavier_uniform_(layer.weight, ACTIVATIONS[name][1])
                nn.init.zeros_(layer.bias)
        if tied_weights:
            for layer in self.decoder:
                layer.weight = None

    def forward(self, rows):
        """Return the reconstruction of rows of shape (n, n_features)."""
        return self.decode(self.encode(rows))

    def encode(self, rows, n_layers=None):
        """Return the output of the first `n_layers` of the encoder, by default all."""
        for k in range(len(self.encoder) if n_layers is None else n_layers):
            rows = self.encode_layer(k, rows)
        return rows

    def decode(self, codes):
        """Return rows of shape (n, n_features) from codes of shape (n, n_units)."""
        for k in reversed(range(len(self.decoder))):
            codes = self.decode_layer(k, codes)
        return codes

    def encode_layer(self, k, rows):
        """Return the output of layer `k` of the encoder, given its input."""
        return ACTIVATIONS[self.activations[k]][0](self.encoder[k](rows))

    def decode_layer(self, k, codes):
        """Return the reconstruction of the input of layer `k` of the encoder."""
        layer = self.decoder[k]
        # Tied weights belong to the encoder, so that they exist only once.
        weight = self.encoder[k].weight.T if layer.weight is None else layer.weight
        activation = ACTIVATIONS[self._outer_names()[k]][0]
        return activation(F.linear(codes, weight, layer.bias))

    def _outer_names(self):
        """Return the activation of each layer of the decoder: of what it restores."""
        return ["identity", *self.activations[:-1]]


class SingleLayer(nn.Module):
    """One layer of the encoder with its mirror image, for training it alone."""

    def __init__(self, network, k):
        super().__init__()
        self.encoder = network.encoder[k]
        self.decoder = network.decoder[k]
        self._whole = [network, k]  # in a list, so that it is not a submodule

    def forward(self, rows):
        """Return the reconstruction of the layer's inputs."""
        network, k = self._whole
        return network.decode_layer(k, network.encode_layer(k, rows))
