"""Images through the neck, in this process: decoding and network side by side."""

from contextlib import closing

import numpy as np

from ._decoding import decode_ahead

__all__ = ["compute_rows"]


def compute_rows(source, indices, neck, device, settings):
    """Yield the features of images as they come.

    Parameters
    ----------
    source : images.ImageSource
    indices : ndarray of int
        Which of its images.
    neck : necks.Neck
    device : torch.device
    settings : ExtractionSettings

    Yields
    ------
    rows : list of int
        Some of `indices`.
    outputs : list of ndarray of float32, shape (len(rows), n_features of the output)
        One for each of the neck's outputs.
    bad : dict of int to BadImageError
        The images among `indices` found meanwhile that cannot be read.
    """
    batch_size = settings.batch_size
    if batch_size == "auto":
        batch_size = neck.suggested_batch_size(device)
    with (
        neck.loaded(device, settings.precision) as run,
        closing(
            decode_ahead(source, indices, neck.preprocessing, batch_size)
        ) as decoded,
    ):
        for rows, images, bad in decoded:
            yield rows, run(np.stack(images)) if rows else [], bad
