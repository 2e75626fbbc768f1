"""What the frozen first stages return for training images, kept where it comes again.

The stages before the first that is trained compute the same for the same image in every
epoch. So they run as an extraction does, in its runtimes, and where an image has few
views (`n_views`, or the center only), their outputs are kept.
"""

import contextlib
import logging
import shutil
import tempfile

import numpy as np
import torch

from .._utils._large_arrays import allocate
from ..networks import LayerOutputs
from ..training import PixelData

logger = logging.getLogger(__name__)

# Outputs of more than these bytes in total are stored in a temporary file. Outputs
# beyond the second limit, or half of the free space, are computed again each time.
_MAX_BYTES_IN_MEMORY = 2**30
_MAX_BYTES = 16 * 2**30


class FrozenOutputs:
    """Training images as outputs of the last frozen layer, where that is possible.

    Parameters
    ----------
    fit : Fit
    body : TrainableNeck
    images : PixelData
    n_epochs : int

    Attributes
    ----------
    targets, weights : Tensor
        Those of `images`.
    """

    def __init__(self, fit, body, images, n_epochs):
        self.targets = images.targets
        self.weights = images.weights
        self._fit = fit
        self._body = body
        self._images = images
        self._n_passes = min(n_epochs, images.n_views or n_epochs)
        self._comes_again = self._n_passes < n_epochs
        self._layer = self._run = self._kept = None
        self._resources = contextlib.ExitStack()

    @staticmethod
    def can_replace(data, fit):
        """Return whether outputs of frozen layers can stand for training images."""
        settings = fit.settings
        return (
            isinstance(data, PixelData)
            and settings.unfreeze != "all"
            # These need the images or the outputs of all layers.
            and settings.mixup == settings.activation_l1 == 0
            and fit.teachers is None
            # A GPU's outputs would be copied to the CPU and back.
            and (fit.device.type == "cpu" or data.n_views is not None)
        )

    def __len__(self):
        return len(self._images)

    def begin(self, epoch):
        """Begin an epoch, counted from 0. Its trained stages have been chosen."""
        self._images.begin(epoch)
        layer = self._body.last_frozen_layer()
        if layer == self._layer:
            return
        self.close()
        self._layer = layer
        if layer is None:
            return
        try:
            self._open(layer)
        except Exception as error:  # a network may raise anything
            logger.info("the whole network runs in each epoch: %s", error)
            self.close()
            self._body.begin_at(None)

    def close(self):
        """Give back the network and what was kept."""
        self._run = self._kept = None
        self._resources.close()

    def _open(self, layer):
        fit, images = self._fit, self._images
        self._body.begin_at(layer)
        neck = fit.neck.at_layer(layer.name, pooling="flatten")
        n_images = self._n_passes * len(images)
        if fit.settings.unfreeze == "gradual":
            n_images = len(images)  # another layer is the last frozen one soon
        wanted = (fit.device, fit.settings.precision, fit.extraction.runtime, n_images)
        self._n_at_once = neck.suggested_batch_size(
            fit.device, neck.chosen_runtime(*wanted)
        )
        self._run = self._resources.enter_context(neck.loaded(*wanted))
        if self._comes_again:
            n_views = images.n_views * len(images)
            self._kept = KeptRows(n_views, sum(neck.n_features()))

    def batch(self, rows, rng, positions, n_total):
        """Return the images of a batch, or what the frozen layers return for them.

        The parameters are those of `PixelData.batch`.
        """
        if self._run is None:
            return self._images.batch(rows, rng, positions, n_total)
        numbers = None if self._kept is None else self._images.view_numbers(rows)
        missing = slice(None) if numbers is None else self._kept.missing(numbers)
        images = self._images.batch(rows[missing], rng, positions[missing], n_total)
        if images.dtype != torch.uint8:
            return images  # as a transform of the user's may return them
        new = self._compute(images)
        if numbers is not None:
            new = self._kept.completed(numbers, missing, new)
        shape = (len(rows), *self._layer.shape)
        return LayerOutputs(self._layer.name, torch.from_numpy(new).reshape(shape))

    def _compute(self, images):
        pixels = images.permute(0, 2, 3, 1).contiguous()
        if pixels.is_cuda:
            # The network runs on another stream.
            torch.cuda.current_stream(pixels.device).synchronize()
        # For no images, the runner returns rows of the right length.
        return np.concatenate(
            [self._run(part)[0] for part in pixels.split(self._n_at_once)]
        )


class KeptRows:
    """Rows by number, as many as there is room for.

    Those that came first stay: numbers come in turns, so that the oldest is the next
    to be asked for.

    Parameters
    ----------
    n_numbers, n_features : int
    max_bytes_in_memory, max_bytes : int
        More are kept in a temporary file, and no more at all.
    """

    def __init__(
        self, n_numbers, n_features,
        max_bytes_in_memory=_MAX_BYTES_IN_MEMORY, max_bytes=_MAX_BYTES,
    ):  # fmt: skip
        row_bytes = 4 * n_features
        if n_numbers * row_bytes > max_bytes_in_memory:
            try:
                free = shutil.disk_usage(tempfile.gettempdir()).free // 2
            except OSError:  # no temporary directory is writable
                free = 0
            max_bytes = min(max_bytes, max(free, max_bytes_in_memory))
        n_rows = min(n_numbers, max_bytes // row_bytes)
        self._rows = allocate((n_rows, n_features), np.float32, max_bytes_in_memory)
        self._places = np.full(n_numbers, -1)
        self._n_kept = 0

    def missing(self, numbers):
        """Return the indices of the numbers whose rows are not kept."""
        return np.flatnonzero(self._places[numbers] < 0)

    def completed(self, numbers, missing, new):
        """Return the rows of all numbers, and keep new ones.

        Parameters
        ----------
        numbers, missing : ndarray of int
        new : ndarray of float32, shape (n_missing, n_features)
        """
        rows = np.empty((len(numbers), self._rows.shape[1]), np.float32)
        known = np.flatnonzero(self._places[numbers] >= 0)
        rows[known] = self._rows[self._places[numbers[known]]]
        if len(missing):
            rows[missing] = new
        n_more = min(len(missing), len(self._rows) - self._n_kept)
        places = self._n_kept + np.arange(n_more)
        self._rows[places] = new[:n_more]
        self._places[numbers[missing[:n_more]]] = places
        self._n_kept += n_more
        return rows
