"""Batches of any size through a network, in parts if the memory is too small."""

import logging
import threading

import numpy as np
import torch

from ..._utils._device import free_device_memory, is_out_of_memory
from ..._utils._forks import undisturbed_by_forks
from ..._utils._parameter_errors import first_line
from ...exceptions import OutOfMemoryError

logger = logging.getLogger(__name__)


class Runner:
    """Turns batches of images into rows of features on one device.

    Parameters
    ----------
    compute : callable
        ``compute(batch)``, from a tensor of uint8, shape (n, height, width, 3), to a
        list of arrays of float32, shape (n, n_features), one for each output. Not
        shared with other runners.
    outputs : sequence of Output
    device : torch.device
    """

    def __init__(self, compute, outputs, device):
        self._network = compute
        self._outputs = outputs
        self._device = device
        self._largest_fit = None
        self._lock = threading.Lock()

    def __call__(self, batch):
        """Return the features of a batch.

        If the device's memory is not enough, the batch is run in halves, and later
        batches in parts of the size that fits.

        Parameters
        ----------
        batch : ndarray or Tensor of uint8, shape (n_images, height, width, 3)

        Returns
        -------
        list of ndarray of float32, shape (n_images, n_features)
            One for each wanted layer.

        Raises
        ------
        OutOfMemoryError
            If a single image does not fit.
        """
        if self._network is None:
            raise RuntimeError("the network was given back: load it again")
        batch = torch.as_tensor(batch)
        rows = [
            np.empty((len(batch), one.n_features), np.float32) for one in self._outputs
        ]
        start = 0
        with undisturbed_by_forks(), self._lock:
            while start < len(batch):
                size = min(self._largest_fit or len(batch), len(batch) - start)
                part = cause = None
                try:
                    part = self._network(batch[start : start + size])
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    cause = first_line(error)
                if part is None:
                    # After the except clause, which frees the traceback's tensors.
                    self._shrink(size, batch.shape[1:3], cause)
                    continue
                for whole, piece in zip(rows, part, strict=True):
                    whole[start : start + size] = piece
                start += size
        return rows

    def close(self):
        """Drop the network, so that the device's memory can be freed."""
        self._network = None

    def _shrink(self, size, shape, cause):
        free_device_memory(self._device)
        if size == 1:
            raise OutOfMemoryError(
                f"Not even one image of {shape[0]} x {shape[1]} pixels fits into the "
                f"memory of {self._device} ({cause}). End what else uses that memory, "
                "or choose a smaller 'image_size', a smaller 'model', "
                "precision='bfloat16' or device='cpu'."
            )
        if self._largest_fit is None:
            logger.warning(
                "a batch of %d images does not fit into the memory of %s; "
                "continuing with smaller ones",
                size,
                self._device,
            )
        self._largest_fit = size // 2
