"""The gradient of one batch: mixed precision, mixup, and batches that do not fit."""

import logging

import numpy as np
import torch

from .._utils._device import autocast, float32_arithmetic, try_on_device
from ..exceptions import OutOfMemoryError
from ._activation_sizes import ActivationSizes
from ._depthwise_gradients import fast_depthwise_gradients

logger = logging.getLogger(__name__)


def draw_mixing(alpha, rng, positions, n_total):
    """Return (fraction, partners) that mix a part of a batch, or None.

    Parameters
    ----------
    alpha : float
        Parameter of the Beta distribution; 0 does not mix.
    rng : numpy.random.Generator
    positions : ndarray of int
        Where the part is in the batch. Partners are drawn for the whole batch, and
        are samples of the part, because a process has no others.
    n_total : int
        Size of the batch.
    """
    if alpha == 0:
        return None
    fraction = float(rng.beta(alpha, alpha))
    return fraction, torch.from_numpy(np.argsort(rng.permutation(n_total)[positions]))


class BatchGradients:
    """Forward and backward passes, in parts if a batch does not fit in memory.

    Parameters
    ----------
    model : Module
    loss : callable
        See `make_loss`.
    settings : LoopSettings
    device : torch.device
    scaler : torch.amp.GradScaler
    teacher, taught_fraction : callable or None, float
        See `TrainingRun`.
    """

    def __init__(
        self, model, loss, settings, device, scaler, teacher=None, taught_fraction=1.0
    ):
        self._model = model
        self._loss = loss
        self._settings = settings
        self._device = device
        self._scaler = scaler
        self._teacher = teacher
        self._taught_fraction = taught_fraction
        # A batch may be larger than `batch_size` by one.
        self._largest_fit = settings.batch_size + 1

    def compute(self, inputs, targets, weights, mixing, stream):
        """Set the gradients of the model's parameters; return the loss.

        Parameters
        ----------
        inputs, targets : Tensor, shape (n_samples, ...)
            The targets may be `TaughtTargets`.
        weights : Tensor, shape (n_samples,)
            What the loss of each sample is multiplied by.
        mixing : tuple or None
            See `draw_mixing`.
        stream : RandomStream
            Where dropout draws from.

        Raises
        ------
        OutOfMemoryError
            If not even one sample fits in the memory of the device.
        """
        while True:
            self._model.zero_grad(set_to_none=True)
            value, cause = try_on_device(
                self._device,
                lambda: self._add_parts(inputs, targets, weights, mixing, stream),
            )
            if cause is None:
                return value
            self._shrink(cause, len(targets))

    def _add_parts(self, inputs, targets, weights, mixing, stream):
        """Add the gradients of the parts of a batch; return the loss."""
        value = 0.0
        try:
            with float32_arithmetic(self._device, self._settings.precision):
                for start in range(0, len(targets), self._largest_fit):
                    part = slice(start, start + self._largest_fit)
                    # Dropout draws in the forward pass. During the backward pass,
                    # fits in other threads may draw.
                    with stream.drawing():
                        loss = self._loss_of(inputs, targets, weights, mixing, part)
                    self._scaler.scale(loss).backward()
                    value += float(loss.detach())
        except ValueError as error:
            if _has_no_variance(error):
                self._refuse_small_batches(error, len(targets))
            raise
        return value

    def _loss_of(self, inputs, targets, weights, mixing, part):
        """Return the weighted loss of a part of a batch."""
        images, wanted = self._to(inputs[part]), [(1.0, self._to(targets[part]))]
        weight = self._to(weights[part])
        if mixing is not None:
            fraction, partners = mixing[0], mixing[1][part]
            others = self._to(inputs[partners])
            if images.dtype == torch.uint8:
                images, others = images.float() / 255, others.float() / 255
            images = images * fraction + others * (1 - fraction)
            wanted = [
                (fraction, wanted[0][1]),
                (1 - fraction, self._to(targets[partners])),
            ]
        if self._teacher is not None:
            # The teacher gets the same images as the student (Beyer et al. 2022).
            with torch.no_grad():
                soft = self._run(self._teacher, images)
            wanted = [
                (share, one.blended(soft, self._taught_fraction))
                for share, one in wanted
            ]
        outputs, penalty = self._outputs(images)
        each = sum(share * self._loss(outputs, one) for share, one in wanted)
        return ((each + penalty) * weight).sum()

    def _outputs(self, images):
        """Return the outputs for images, and what is added to the loss of each."""
        factor = self._settings.activation_l1
        if factor == 0:
            return self._run(self._model, images), 0.0
        with ActivationSizes() as sizes:
            outputs = self._run(self._model, images)
        return outputs, factor * sizes.mean()

    def _run(self, module, images):
        with (
            autocast(self._device, self._settings.precision),
            fast_depthwise_gradients(self._device),
        ):
            return module(images).float()

    def _to(self, tensor):
        return tensor.to(self._device, non_blocking=True)

    def _shrink(self, cause, n):
        """Split the `n` samples of this batch, and later ones, into smaller parts."""
        size = min(self._largest_fit, n)
        if size <= 1:
            raise OutOfMemoryError(
                "Not even one image can be trained in the memory of "
                f"{self._device} ({cause}). Choose a smaller 'image_size', a smaller "
                "'model', fewer stages for 'unfreeze', precision='bfloat16' or "
                "device='cpu'."
            )
        self._largest_fit = size // 2
        logger.warning(
            "a batch does not fit in the memory of %s; continuing with parts of %d "
            "images, whose gradients are added",
            self._device,
            self._largest_fit,
        )

    def _refuse_small_batches(self, error, n):
        cause = (
            f"Got batch_size={self._settings.batch_size} and a batch of {n} image(s)"
        )
        if self._largest_fit < n:
            cause += f", only {self._largest_fit} of which fit in memory"
        raise ValueError(
            "The 'batch_size' parameter must be at least 2, with at least 2 training "
            "images for each process, if batch normalizations use the statistics of "
            "batches (freeze_batch_norm=False). This network has a batch normalization "
            f"of maps of one pixel, and one value has no variance. {cause}. Choose a "
            "larger 'batch_size' or 'image_size', or freeze_batch_norm=True."
        ) from error


def _has_no_variance(error):
    """Whether torch refuses to normalize a batch that has one value per channel."""
    return "more than 1 value per channel" in str(error)
