"""Losses, with one value per sample, so that samples can be weighted."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from .._utils._parameter_errors import look_up


@dataclass(frozen=True)
class Loss:
    """An entry of the registry of losses.

    Attributes
    ----------
    functions : dict of str to callable
        By task (``"single"``: one label out of several; ``"multilabel"``;
        ``"regression"``), ``function(outputs, targets, label_smoothing)``, which
        returns a tensor of shape (n_samples,). Outputs have the shape (n_samples,
        n_outputs). Targets are class numbers (n_samples,) for one label, else floats of
        the outputs' shape.
    has_probabilities : bool
        Whether the softmax of the outputs (the sigmoid, for several labels) estimates
        the probabilities of the classes.
    """

    functions: dict[str, Callable]
    has_probabilities: bool = False


def has_probabilities(name):
    """Return whether outputs trained with a loss estimate probabilities."""
    return name in LOSSES and LOSSES[name].has_probabilities


def make_loss(name, task, *, label_smoothing=0.0):
    """Return ``loss(outputs, targets) -> Tensor of shape (n_samples,)``.

    Parameters
    ----------
    name : str
        ``"cross_entropy"`` (softmax; with several labels per sample, a sigmoid for
        each), ``"hinge"`` (Crammer and Singer 2001: 1 plus the largest other score
        minus the score of the label, if positive; with several labels, a binary hinge
        for each), ``"squared_error"``, ``"absolute_error"`` or ``"huber"``.
    task : {"single", "multilabel", "regression"}
    label_smoothing : float, default=0.0
        The fraction of a target that is spread over all classes (Szegedy et al. 2016).
        Used by cross-entropy only.

    Returns
    -------
    callable
        Takes outputs and targets as `Loss` describes them.

    Raises
    ------
    ValueError
        If there is no such loss, or it is not for this task.
    """
    for_task = {key: one for key, one in LOSSES.items() if task in one.functions}
    function = look_up(for_task, name, "loss").functions[task]
    return functools.partial(function, label_smoothing=label_smoothing)


def _softmax_cross_entropy(outputs, targets, label_smoothing):
    return F.cross_entropy(
        outputs, targets, reduction="none", label_smoothing=label_smoothing
    )


def _sigmoid_cross_entropy(outputs, targets, label_smoothing):
    targets = targets * (1 - label_smoothing) + label_smoothing / 2
    each = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    return each.mean(1)


def _hinge(outputs, targets, label_smoothing):
    right = outputs.gather(1, targets[:, None])
    others = outputs.scatter(1, targets[:, None], -torch.inf)
    return (1 + others.amax(1, keepdim=True) - right).clamp(min=0).squeeze(1)


def _binary_hinge(outputs, targets, label_smoothing):
    return (1 - (2 * targets - 1) * outputs).clamp(min=0).mean(1)


def _regression(function):
    def loss(outputs, targets, label_smoothing):
        return function(outputs, targets, reduction="none").mean(1)

    return {"regression": loss}


LOSSES = {
    "cross_entropy": Loss(
        {"single": _softmax_cross_entropy, "multilabel": _sigmoid_cross_entropy},
        has_probabilities=True,
    ),
    "hinge": Loss({"single": _hinge, "multilabel": _binary_hinge}),
    "squared_error": Loss(_regression(F.mse_loss)),
    "absolute_error": Loss(_regression(F.l1_loss)),
    "huber": Loss(_regression(F.huber_loss)),
}

CLASSIFICATION_LOSSES = tuple(k for k, v in LOSSES.items() if "single" in v.functions)
REGRESSION_LOSSES = tuple(k for k, v in LOSSES.items() if "regression" in v.functions)
