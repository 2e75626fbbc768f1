"""A copy of the network of a neck, run on batches of pixels with gradients."""

import contextlib

import numpy as np
import torch

from .._utils._device import float32_arithmetic, free_device_memory, resolve_devices
from .._utils._threads import all_cores
from ..feature_extraction import non_finite_error

# The activations of all layers are kept for the gradients, so fewer images than for an
# extraction fit into the memory.
_BATCH = 16


@contextlib.contextmanager
def opened_network(neck, settings):
    """Lend a copy of the network whose weights need no gradients.

    Parameters
    ----------
    neck : networks.Neck
    settings : ExtractionSettings

    Yields
    ------
    network : networks.TrainableNeck
        In evaluation mode and in the precision of its weights, usually float32.
    device : torch.device
    """
    device = resolve_devices(settings.device)[0]
    try:
        with all_cores(device), float32_arithmetic(device, "float32"):
            yield neck.trainable().requires_grad_(False).to(device), device
    finally:
        free_device_memory(device)


def batches(pixels, indices, device):
    """Yield (some of the indices, their images as uint8 tensors on a device).

    Parameters
    ----------
    pixels : ndarray of uint8, shape (n_images, height, width, 3)
    indices : ndarray of int
    device : torch.device
    """
    for start in range(0, len(indices), _BATCH):
        part = indices[start : start + _BATCH]
        images = torch.from_numpy(np.ascontiguousarray(pixels[part])).to(device)
        yield part, images.permute(0, 3, 1, 2)


def check_finite(rows, indices, neck, settings):
    """Return features as float64; raise if the network did not return numbers.

    Parameters
    ----------
    rows : Tensor, shape (len(indices), n_features)
    indices : ndarray of int
        Their images, for the message.
    neck : networks.Neck
    settings : ExtractionSettings

    Raises
    ------
    NonFiniteOutputError
    """
    rows = rows.detach().cpu().double().numpy()
    refused = ~np.isfinite(rows).all(axis=1)
    if refused.any():
        raise non_finite_error(neck, settings.precision, indices[refused].tolist())
    return rows
