"""A network run by torch itself, operation by operation."""

import logging

import torch

from ..._utils._device import compute_context, free_device_memory
from .._copying import copy_network
from ._batch_norm_folding import fold_batch_norms
from ._device_transfer import Transfer
from ._row_difference import TOLERANCE, largest_difference, random_pixels
from ._truncated_pass import run_truncated

__all__ = ["EagerNetwork"]

logger = logging.getLogger(__name__)

# Precisions that leave the type of the weights alone; the others are torch.autocast's.
_AS_THEY_ARE = ("float32", "tf32")

_N_COMPARED = 2


class EagerNetwork:
    """The way from pixels to rows in torch.

    Parameters
    ----------
    network : Module
        On `device`, in evaluation mode, used by nobody else.
    outputs : sequence of Output
    probe : Probe
    preprocessing : Preprocessing
        Its mean and std are applied here, on the device.
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    folds : bool, default=False
        Whether to fold batch norms into convolutions first, at the first batch. It
        takes the time of some images, and memory for the weights of the convolutions.
    """

    def __init__(
        self, network, outputs, probe, preprocessing, device, precision, folds=False
    ):
        self.network = network
        self._outputs = outputs
        self._probe = probe
        self._device = device
        self._precision = precision
        self._folds = folds
        self._crop = preprocessing.crop
        self._channels_last = True
        self._dtype = _dtype_of(network)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(preprocessing.mean, device=device).reshape(shape)
        self._std = torch.tensor(preprocessing.std, device=device).reshape(shape)
        self._transfer = Transfer(device)

    def __call__(self, batch):
        """Return the rows of a batch.

        Parameters
        ----------
        batch : Tensor of uint8, shape (n_images, height, width, 3)

        Returns
        -------
        list of ndarray of float32, shape (n_images, n_features)
        """
        with self._transfer.stream():
            return [rows.cpu().numpy() for rows in self.queue(batch)]

    def queue(self, batch):
        """Return the rows as tensors on the device, which may still compute them.

        Parameters
        ----------
        batch : Tensor of uint8, shape (n_images, height, width, 3)
        """
        folds = self._folds
        try:
            return self._compute(batch)
        except Exception as error:
            if not self._channels_last or not _wants_contiguous(error):
                raise
        self._use_contiguous()
        self._folds = folds
        return self._compute(batch)

    def _compute(self, batch):
        if self._folds:
            self._folds = False  # also after an error
            fault = self._fold()
            if fault:
                logger.info(
                    "batch norms of %s are not folded: %s",
                    type(self.network).__name__,
                    fault,
                )
                free_device_memory(self._device)
        return self._rows(batch, self.network, self._precision)

    def _fold(self):
        """Go on with batch norms folded; return why not, if it cannot be done."""
        pixels = random_pixels(_N_COMPARED, self._crop)
        wanted = []

        def run(network):
            wanted[:] = self._rows(pixels, network, "float32")

        try:
            with self._transfer.stream():
                folded = fold_batch_norms(
                    self.network, run, kept={one.module for one in self._outputs}
                )
                if folded is None:
                    return None
                found = self._rows(pixels, folded, "float32")
                error = largest_difference(
                    [rows.cpu().numpy() for rows in found],
                    [rows.cpu().numpy() for rows in wanted],
                )
        except Exception as error:  # networks are anybody's code
            if _wants_contiguous(error):
                raise
            return f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        if not error <= TOLERANCE:
            return f"rows would differ by {error:.1e} of the largest value"
        self.network = folded
        return None

    def _rows(self, batch, network, precision):
        with compute_context(self._device, precision), self._transfer.stream():
            images = self._normalize(batch, precision)
            return run_truncated(network, images, self._outputs, self._probe)

    def _normalize(self, batch, precision):
        # Permuting leaves the channels last in memory; uint8 is the least to transfer.
        batch = self._transfer.send(batch)
        images = batch.permute(0, 3, 1, 2).to(torch.float32)
        images = images.div_(255).sub_(self._mean).div_(self._std)
        if not self._channels_last:
            images = images.contiguous()
        return images.to(self._dtype) if precision in _AS_THEY_ARE else images

    def _use_contiguous(self):
        """Go on with channels first: some networks' `view` cannot do otherwise."""
        logger.debug("%s needs contiguous images", type(self.network).__name__)
        self._channels_last = False
        # A copy, because the weights as they are may be shared.
        self.network = copy_network(self.network, memory_format=torch.contiguous_format)


def _wants_contiguous(error):
    return "view size is not compatible" in str(error)


def _dtype_of(network):
    floating = (p.dtype for p in network.parameters() if p.dtype.is_floating_point)
    return next(floating, torch.float32)
