"""Batches of any size through a network, in parts if the memory is too small."""

import functools
import logging
import threading

import numpy as np
import torch

from ..._utils._device import try_on_device
from ..._utils._forks import undisturbed_by_forks
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
        batch : ndarray or Tensor of uint8, shape (n_images, height, width, 3), or \
ItemBatch

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
        if isinstance(batch, np.ndarray):
            batch = torch.as_tensor(batch)
        rows = [
            np.empty((len(batch), one.n_features), np.float32) for one in self._outputs
        ]
        start = 0
        with undisturbed_by_forks(), self._lock:
            while start < len(batch):
                size = min(self._largest_fit or len(batch), len(batch) - start)
                call = functools.partial(self._network, batch[start : start + size])
                part, cause = try_on_device(self._device, call)
                if cause is not None:
                    self._shrink(size, batch, cause)
                    continue
                for whole, piece, one in zip(rows, part, self._outputs, strict=True):
                    if piece.shape != (size, one.n_features):
                        raise _shape_error(one, piece.shape, size)
                    whole[start : start + size] = piece
                start += size
        return rows

    def close(self):
        """Drop the network, so that the device's memory can be freed."""
        self._network = None

    def _shrink(self, size, batch, cause):
        if size == 1:
            if not isinstance(batch, torch.Tensor):
                raise too_large(self._device, cause)
            height, width = batch.shape[1:3]
            what = f"image of {height} x {width} pixels"
            remedy = "a smaller 'image_size', precision='bfloat16'"
            raise too_large(self._device, cause, what, remedy)
        if self._largest_fit is None:
            logger.warning(
                "a batch of %d does not fit into the memory of %s; "
                "continuing with smaller ones",
                size,
                self._device,
            )
        self._largest_fit = size // 2


def too_large(device, cause, what="item", remedy="shorter items"):
    """Return the error for an item that does not fit into the memory of a device."""
    return OutOfMemoryError(
        f"Not even one {what} fits into the memory of {device} ({cause}). Close other "
        f"programs that use it, or choose {remedy}, a smaller 'model' or device='cpu'."
    )


def _shape_error(output, shape, size):
    if shape[0] != size:
        return ValueError(
            f"The 'layer' parameter must be a layer with one row for each item. "
            f"{output.layer!r} returned {shape[0]} for {size}: its first axis may be "
            "that of the positions. Set batch_first=True in the module, or choose "
            "another layer."
        )
    return ValueError(
        f"The 'pooling' parameter must give rows of one length. For {output.layer!r}, "
        f"{output.pooling!r} gave {output.n_features} features for some items and "
        f"{shape[1]} for others, because their lengths differ. Choose 'mean' or 'max', "
        "or let 'collate' pad to a fixed length."
    )
