"""The network that is trained on pairs of views: a body with a projection."""

import copy

import torch
from torch import nn

from .._utils._random import seeded

# Of the weights of the past in the target network, at each step (Grill et al. 2020).
_TARGET_DECAY = 0.99


def make_head(n_features, sizes, has_predictor, seed):
    """Return what comes after the body in training: dense layers, with normalizations.

    Parameters
    ----------
    n_features : int
        Of the body.
    sizes : sequence of int
        Number of units of each layer. The last is the size of the embedding.
    has_predictor : bool
        Whether another network predicts the embedding of the second view.
    seed : int

    Returns
    -------
    Sequential
        With a `projector`, and a `predictor` if there is one.
    """
    head = nn.Sequential()
    with seeded(seed):
        head.add_module("projector", _dense([n_features, *sizes]))
        if has_predictor:
            head.add_module("predictor", _dense([sizes[-1]] * 3))
    return head


def _dense(sizes):
    layers = []
    for n_inputs, n_units in zip(sizes[:-2], sizes[1:-1], strict=True):
        layers += [nn.Linear(n_inputs, n_units, bias=False), nn.BatchNorm1d(n_units)]
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers, nn.Linear(*sizes[-2:]))


class PairNetwork(nn.Module):
    """Pairs of views (n, 2, 3, height, width) in, embeddings (n, 2, d) out.

    With a predictor, the second embedding comes from a target network, whose weights
    are a moving average and get no gradient. Then the views swap their places, and the
    result has the shape (n, 4, d): the prediction of each view, then its target.

    Parameters
    ----------
    neck : TrainableNeck
    head : Module
        See `make_head`.
    """

    def __init__(self, neck, head):
        super().__init__()
        self.neck = neck
        self.head = head
        self.target = None
        if hasattr(head, "predictor"):
            self.target = nn.Sequential(*copy.deepcopy([neck, head.projector]))
            self.target.requires_grad_(False)

    def forward(self, views):
        """Return the embeddings of both views."""
        images = views.flatten(0, 1)
        embeddings = self.head(self.neck(images))
        if self.target is None:
            return embeddings.unflatten(0, (len(views), 2))
        with torch.no_grad():
            if self.head.training:
                self._follow()
            targets = self.target(images)
        both = [one.unflatten(0, (len(views), 2)) for one in (embeddings, targets)]
        return torch.cat([both[0], both[1].flip(1)], dim=1)

    def _follow(self):
        """Move the target towards the network, in its mode and with its statistics."""
        online = nn.Sequential(self.neck, self.head.projector)
        for mine, other in zip(self.target.modules(), online.modules(), strict=True):
            mine.training = other.training
        for mine, other in zip(
            self.target.parameters(), online.parameters(), strict=True
        ):
            mine.lerp_(other, 1 - _TARGET_DECAY)
        for mine, other in zip(self.target.buffers(), online.buffers(), strict=True):
            mine.copy_(other)
