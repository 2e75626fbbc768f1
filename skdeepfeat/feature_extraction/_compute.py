"""Images through the neck, in this process: decoding, network and caller side by side.

Threads decode the next batches while one computes; rows are handed on, to be stored,
while the network runs already on the next batch.
"""

import contextlib
import functools
import threading

import numpy as np

from .._utils._threads import all_cores
from ..images import check_jpeg_decoder, fit_on_device
from ._arithmetic import check_device_type
from ._background import compute_beside
from ._decode_ahead import decode_ahead, decoding_threads

__all__ = ["compute_rows"]

# Threads that feed one device. While one waits for the result of a GPU, the other has
# queued the next batch there; on a CPU a second one would only take its turns.
_N_FEEDERS = {"cuda": 2}


def compute_rows(source, indices, neck, devices, settings, n_images=None):
    """Yield the features of images as they come.

    Parameters
    ----------
    source : images.ImageSource
    indices : ndarray of int
        Which of its images.
    neck : networks.Neck
    devices : list of torch.device
        Batches are shared out among them as each gets done.
    settings : ExtractionSettings
    n_images : int, default=None
        How many images the whole job has, where this is a part of it.

    Yields
    ------
    rows : list of int
        Some of `indices`.
    outputs : list of ndarray of float32, shape (len(rows), n_features of the output)
        One for each of the neck's outputs.
    bad : dict of int to BadImageError
        The images among `indices` found meanwhile that cannot be read. With
        ``on_error="raise"``, no more batches are begun after the first.
    """
    n_images = len(indices) if n_images is None else n_images
    check_device_type(devices, settings)
    for device in devices:
        check_jpeg_decoder(settings.jpeg_decoder, device)
    batch_size = settings.batch_size
    if batch_size == "auto":
        batch_size = min(
            neck.suggested_batch_size(
                device,
                neck.chosen_runtime(
                    device, settings.precision, settings.runtime, n_images
                ),
            )
            for device in devices
        )
    # What is being computed when a broken image is found is worth keeping, and comes
    # out all the same.
    found_bad = threading.Event() if settings.on_error == "raise" else None
    workers = [
        functools.partial(_worker, neck, device, settings, n_images, found_bad)
        for device in devices
        for _ in range(_N_FEEDERS.get(device.type, 1))
    ]
    with decoding_threads() as pool:
        decoded = decode_ahead(
            pool,
            source,
            indices,
            neck.preprocessing,
            batch_size,
            n_consumers=len(workers),
            found_bad=found_bad,
            for_device=settings.jpeg_decoder == "device",
        )
        # Ctrl-C waits for the network's batch, but for no image.
        computed = compute_beside(decoded, workers, on_stop=pool.abandon)
        with contextlib.closing(computed):
            yield from computed


@contextlib.contextmanager
def _worker(neck, device, settings, n_images, found_bad):
    """Lend the network in the form of ``compute(decoded batch) -> rows``."""
    loaded = neck.loaded(device, settings.precision, settings.runtime, n_images)
    with all_cores(device), loaded as run:

        def compute(batch):
            rows, images, bad = batch
            if settings.jpeg_decoder == "device":
                rows, images, failures = _fit(rows, images, neck, device)
                bad = {**bad, **failures}
                if failures and found_bad:
                    found_bad.set()
            return rows, run(_stacked(images)) if rows else [], bad

        yield compute


def _fit(rows, images, neck, device):
    """Have a device decode a batch; return what is left of it, and the failures."""
    images, failures = fit_on_device(images, neck.preprocessing, device)
    left = [row for i, row in enumerate(rows) if i not in failures]
    return left, images, {rows[i]: error for i, error in failures.items()}


def _stacked(images):
    return np.stack(images) if isinstance(images, list) else images
