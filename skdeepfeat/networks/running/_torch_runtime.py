"""Networks run by torch itself, operation by operation."""

import logging

import torch

from ..._utils._device import compute_context, free_device_memory
from ..._utils._parameter_errors import first_line
from .._modules import copy_network, floating_dtype
from ._batch_norm_folding import fold_batch_norms
from ._row_difference import random_pixels
from ._runtimes import is_worth_folding
from ._truncated_pass import run_truncated

logger = logging.getLogger(__name__)

# torch.autocast handles the other precisions.
_WITHOUT_AUTOCAST = ("float32", "tf32")

_N_COMPARED = 2


class EagerNetwork:
    """From pixels to rows in torch.

    Parameters
    ----------
    network : Module
        On `device`, in evaluation mode, not shared with other threads.
    neck : Neck
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    n_images : int or None
        How many images to run. If they are many, batch norms are folded into
        convolutions at the first batch. That takes as long as some images, and memory
        for the weights of the convolutions.
    """

    def __init__(self, network, neck, device, precision, n_images):
        self.network = network
        self._outputs = neck.outputs
        self._probe = neck.probe
        self._crop = neck.preprocessing.crop
        self._mean, self._std = (
            torch.tensor(value, device=device).reshape(1, 3, 1, 1)
            for value in (neck.preprocessing.mean, neck.preprocessing.std)
        )
        self._device = device
        self._precision = precision
        self._dtype = floating_dtype(network)
        self._channels_last = True
        self._transfer = Transfer(device)
        self.fold_if_worthwhile(n_images)

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

    def fold_if_worthwhile(self, n_images):
        """Fold batch norms at the next batch if some images are worth it."""
        self._folds = is_worth_folding(
            self._device, self._precision, self._crop, n_images
        )

    def queue(self, batch):
        """Return the rows as tensors on the device, which may still compute them."""
        while True:
            try:
                if self._folds:
                    self._fold()
                return self._rows(batch, self.network, self._precision)
            except Exception as error:
                if not self._channels_last or not _wants_contiguous(error):
                    raise
            # The `view` of some networks needs channels first.
            logger.debug("%s needs contiguous images", type(self.network).__name__)
            self._channels_last = False
            # A copy, because the weights may be shared.
            self.network = copy_network(
                self.network, memory_format=torch.contiguous_format
            )

    def _fold(self):
        """Fold batch norms into convolutions unless the rows would change."""
        pixels = random_pixels(_N_COMPARED, self._crop)
        has_failed = False

        def run(network):
            rows = self._rows(pixels, network, "float32")
            return [one.cpu().numpy() for one in rows]

        try:
            kept = {one.source.name for one in self._outputs}
            self.network = fold_batch_norms(self.network, run, kept)
        except Exception as error:  # a user's network may raise anything
            if self._channels_last and _wants_contiguous(error):
                raise
            name, kind = type(self.network).__name__, type(error).__name__
            cause = first_line(error)
            logger.info("batch norms of %s are not folded: %s: %s", name, kind, cause)
            has_failed = True
        self._folds = False
        if has_failed:
            # After the except clause, which frees the traceback's tensors.
            free_device_memory(self._device)

    def _rows(self, batch, network, precision):
        with compute_context(self._device, precision):
            # uint8 is the least to transfer. Permuting leaves the channels last in
            # memory.
            batch = self._transfer.send(batch)
            images = batch.permute(0, 3, 1, 2).to(torch.float32)
            images = images.div_(255).sub_(self._mean).div_(self._std)
            if not self._channels_last:
                images = images.contiguous()
            if precision in _WITHOUT_AUTOCAST:
                images = images.to(self._dtype)
            return run_truncated(network, images, self._outputs, self._probe)


def _wants_contiguous(error):
    return "view size is not compatible" in str(error)


class Transfer:
    """Sends batches to a device; to a GPU while other threads compute there.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device):
        self._device = device
        self._stream = None
        if device.type == "cuda":
            # A separate stream copies while another thread's network runs.
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def stream(self):
        """Return a context in which all work on a GPU is queued on one stream."""
        return torch.cuda.stream(self._stream)  # no effect without a GPU (None)

    def send(self, batch):
        """Return a tensor on the device, which may arrive there later."""
        if self._stream is not None and not batch.is_cuda:
            batch = batch.pin_memory()  # without it, the copy would block
        return batch.to(self._device, non_blocking=True)
