"""Losses, one number a sample, so that samples can be weighted."""

import torch
from torch.nn import functional as F

__all__ = ["CLASSIFICATION_LOSSES", "REGRESSION_LOSSES", "make_loss"]

CLASSIFICATION_LOSSES = ("cross_entropy", "hinge")
REGRESSION_LOSSES = ("squared_error", "absolute_error", "huber")


def make_loss(name, *, label_smoothing=0.0):
    """Return ``loss(outputs, targets) -> Tensor of shape (n_samples,)``.

    Parameters
    ----------
    name : str
        ``"cross_entropy"`` (of the softmax for one label a sample, of a sigmoid for
        each of several), ``"hinge"`` (Crammer and Singer 2001: how far the largest
        other score comes within 1 of the right one; for several labels a binary hinge
        for each), ``"squared_error"``, ``"absolute_error"`` or ``"huber"``.
    label_smoothing : float, default=0.0
        The share of a target that is spread over all classes (Szegedy et al. 2016);
        cross-entropy only.

    Returns
    -------
    callable
        Outputs have the shape (n_samples, n_outputs). Targets are class numbers
        (n_samples,); for several labels or mixed classes, and for regression, floats
        of the outputs' shape.
    """

    def loss(outputs, targets):
        if name in REGRESSION_LOSSES:
            return _REGRESSION[name](outputs, targets, reduction="none").mean(1)
        if targets.ndim == 1:
            single = _softmax_cross_entropy if name == "cross_entropy" else _hinge
            return single(outputs, targets, label_smoothing)
        binary = _sigmoid_cross_entropy if name == "cross_entropy" else _binary_hinge
        return binary(outputs, targets, label_smoothing).mean(1)

    return loss


_REGRESSION = {
    "squared_error": F.mse_loss,
    "absolute_error": F.l1_loss,
    "huber": F.huber_loss,
}


def _softmax_cross_entropy(outputs, targets, label_smoothing):
    return F.cross_entropy(
        outputs, targets, reduction="none", label_smoothing=label_smoothing
    )


def _hinge(outputs, targets, label_smoothing):
    right = outputs.gather(1, targets[:, None])
    others = outputs.scatter(1, targets[:, None], -torch.inf)
    return (1 + others.amax(1, keepdim=True) - right).clamp(min=0).squeeze(1)


def _sigmoid_cross_entropy(outputs, targets, label_smoothing):
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")


def _binary_hinge(outputs, targets, label_smoothing):
    return (1 - (2 * targets - 1) * outputs).clamp(min=0)
