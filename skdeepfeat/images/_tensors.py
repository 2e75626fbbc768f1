"""torch tensors of images as arrays."""

import numpy as np

from skdeepfeat._utils._tensors import is_tensor, tensor_values

__all__ = ["is_tensor", "tensor_to_array"]


def tensor_to_array(tensor, *, has_channels: bool) -> np.ndarray:
    """Return a tensor's values, from any device, with the channels last.

    Parameters
    ----------
    tensor : torch.Tensor of shape (..., C, H, W) or, without channels, (..., H, W)
    has_channels : bool

    Returns
    -------
    ndarray of shape (..., H, W, C) or (..., H, W)
        A view if the tensor is on the CPU.
    """
    array = tensor_values(tensor)
    return np.moveaxis(array, -3, -1) if has_channels else array
