"""Soft targets: a student learns what a teacher says (Hinton et al. 2015)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

# Probabilities of 0, as forests give them, have no logarithm.
_LEAST = 1e-7


@dataclass(frozen=True)
class TaughtTargets:
    """The soft targets of samples, and the targets of those that are labeled.

    Attributes
    ----------
    values : Tensor, shape (n_samples,) or (n_samples, n_outputs)
        Targets as `Loss` describes them; any valid ones for samples without a label.
    is_labeled : Tensor of bool, shape (n_samples,)
    soft : Tensor of float32, shape (n_samples, n_outputs), or None
        Probabilities of the classes (of each label, for several labels) or, in a
        regression, targets. None if the teacher is asked during the training.
    """

    values: Tensor
    is_labeled: Tensor
    soft: Tensor | None = None

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        return self._map(lambda tensor: tensor[rows])

    def to(self, device, non_blocking=False):
        """Return the same on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def blended(self, soft, fraction):
        """Return targets with a fraction of `soft` in their soft targets."""
        if self.soft is not None:
            soft = (1 - fraction) * self.soft + fraction * soft
        return replace(self, soft=soft)

    def tensors(self):
        """Return the tensors that there are."""
        tensors = [self.values, self.is_labeled, self.soft]
        return [tensor for tensor in tensors if tensor is not None]

    def _map(self, function):
        return TaughtTargets(
            function(self.values),
            function(self.is_labeled),
            None if self.soft is None else function(self.soft),
        )


def make_distillation_loss(loss, task, *, weight, temperature=1.0):
    """Return a loss of outputs and `TaughtTargets`.

    It is ``(1 - weight) * loss`` of labeled samples, plus ``weight`` times a distance
    from what the teacher says. With one label per sample, that is temperature^2
    KL(softmax(t / temperature) || softmax(s / temperature)), where s are the outputs
    and t the logarithms of the teacher's probabilities, which are not below 1e-7. With
    several labels it is the mean of the same over two-class problems. In a regression
    it is the loss itself, with the teacher's targets.

    Parameters
    ----------
    loss : callable
        See `make_loss`.
    task : {"single", "multilabel", "regression"}
    weight : float
        In [0, 1].
    temperature : float, default=1.0
        Above 0. Not used in a regression.

    Returns
    -------
    callable
        ``loss(outputs, targets) -> Tensor of shape (n_samples,)``
    """

    def taught_loss(outputs, targets):
        of_labels = loss(outputs, targets.values)
        of_labels = torch.where(targets.is_labeled, of_labels, 0.0)
        if task == "regression":
            of_teacher = loss(outputs, targets.soft)
        else:
            of_teacher = _DIVERGENCES[task](outputs, targets.soft, temperature)
        return (1 - weight) * of_labels + weight * of_teacher

    return taught_loss


def _divergence(outputs, soft, temperature):
    wanted = soft.clamp(min=_LEAST).log() / temperature
    each = F.kl_div(
        F.log_softmax(outputs / temperature, dim=1),
        F.log_softmax(wanted, dim=1),
        reduction="none",
        log_target=True,
    )
    return temperature**2 * each.sum(1)


def _binary_divergence(outputs, soft, temperature):
    wanted = soft.clamp(_LEAST, 1 - _LEAST).logit() / temperature
    chances = wanted.sigmoid()
    each = F.binary_cross_entropy_with_logits(
        outputs / temperature, chances, reduction="none"
    )
    # Less the entropy of the teacher, so that it is zero where both agree.
    entropy = F.binary_cross_entropy_with_logits(wanted, chances, reduction="none")
    return temperature**2 * (each - entropy).mean(1)


_DIVERGENCES = {"single": _divergence, "multilabel": _binary_divergence}
