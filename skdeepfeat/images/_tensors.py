"""torch tensors as arrays, without importing torch if X holds none."""

import sys

import numpy as np

_NUMPY_FLOATS = {"torch.float16", "torch.float32", "torch.float64"}


def is_tensor(value) -> bool:
    """Return whether `value` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


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
    tensor = tensor.detach().cpu()
    if tensor.dtype.is_floating_point and str(tensor.dtype) not in _NUMPY_FLOATS:
        tensor = tensor.float()  # bfloat16 and the 8-bit floats, which numpy lacks
    array = tensor.resolve_conj().resolve_neg().numpy()
    return np.moveaxis(array, -3, -1) if has_channels else array
