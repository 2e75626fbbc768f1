"""Losses of pairs of views, for learning without labels."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class PairLoss:
    """An entry of the registry of pair losses.

    Attributes
    ----------
    function : callable
        ``function(first, second) -> Tensor``, a number, of the embeddings of two views
        of the same samples, both of shape (n_samples, n_outputs), n_samples >= 2.
    has_target : bool
        Whether `second` comes from a moving average of the network and is constant, and
        a predictor comes before `first`.
    """

    function: Callable
    has_target: bool = False


def alignment(first, second):
    """Return the mean squared distance of pairs on the unit sphere, a number >= 0.

    Source: Wang and Isola, "Understanding contrastive representation learning through
    alignment and uniformity on the hypersphere", ICML 2020, with alpha = 2.
    """
    return (F.normalize(first) - F.normalize(second)).pow(2).sum(1).mean()


def uniformity(embeddings):
    """Return the logarithm of the mean Gaussian potential of points on the unit sphere.

    It is 0 if all are equal, and smaller the more evenly they are spread. Source: as
    `alignment`, with t = 2. Each pair of different samples counts once.
    """
    squares = torch.pdist(F.normalize(embeddings)).pow(2)
    return squares.mul(-2).exp().mean().log()


# The weight of uniformity is the one of the paper's experiments on images.
def _align_uniform(first, second):
    spread = (uniformity(first) + uniformity(second)) / 2
    return alignment(first, second) + spread


def _simclr(first, second, temperature=0.5):
    """NT-Xent: Chen et al., "A simple framework for contrastive ...", ICML 2020."""
    n = len(first)
    views = F.normalize(torch.cat([first, second]))
    similarity = views @ views.T / temperature
    similarity = similarity.masked_fill(
        torch.eye(2 * n, dtype=torch.bool, device=views.device), -torch.inf
    )
    partners = torch.arange(2 * n, device=views.device).roll(n)
    return F.cross_entropy(similarity, partners)


def _barlow(first, second, off_diagonal=5e-3, eps=1e-6):
    """Barlow Twins: Zbontar et al., ICML 2021.

    Outputs are scaled by the population's deviation. With the sample's, the diagonal
    could not reach 1 in small batches.
    """
    first, second = (
        (view - view.mean(0)) / (view.var(0, correction=0) + eps).sqrt()
        for view in (first, second)
    )
    correlation = first.T @ second / len(first)
    diagonal = correlation.diagonal()
    others = correlation.pow(2).sum() - diagonal.pow(2).sum()
    return (1 - diagonal).pow(2).sum() + off_diagonal * others


def _vicreg(first, second, invariance=25.0, variance=25.0, covariance=1.0):
    """VICReg: Bardes, Ponce and LeCun, ICLR 2022, with the paper's weights."""
    loss = invariance * F.mse_loss(first, second)
    for view in (first, second):
        deviations = (view.var(0) + 1e-4).sqrt()
        # Half of each view: the official code averages the two hinges.
        loss = loss + variance * F.relu(1 - deviations).mean() / 2
        covariances = torch.cov(view.T).reshape(view.shape[1], view.shape[1])
        others = covariances.pow(2).sum() - covariances.diagonal().pow(2).sum()
        loss = loss + covariance * others / view.shape[1]
    return loss


def _byol(first, second):
    """Grill et al., "Bootstrap your own latent", NeurIPS 2020: 2 - 2 cos."""
    return 2 - 2 * F.cosine_similarity(first, second.detach()).mean()


PAIR_LOSSES = {
    "vicreg": PairLoss(_vicreg),
    "barlow": PairLoss(_barlow),
    "simclr": PairLoss(_simclr),
    "align_uniform": PairLoss(_align_uniform),
    "byol": PairLoss(_byol, has_target=True),
}


class LossOfPairs:
    """The loss of a batch, repeated for each sample, as `TrainingRun` expects.

    Parameters
    ----------
    method : PairLoss
    """

    def __init__(self, method):
        self._method = method

    def __call__(self, outputs, targets):
        if len(outputs) < 2:
            # The last part of a batch that did not fit in memory. One pair has no
            # statistics.
            return outputs.sum(dim=(1, 2)) * 0
        views = outputs.unbind(1)
        function = self._method.function
        if self._method.has_target:
            value = function(views[0], views[2]) + function(views[1], views[3])
        else:
            value = function(*views)
        return value.expand(len(outputs))
