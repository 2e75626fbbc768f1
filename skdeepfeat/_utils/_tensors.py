"""torch tensors as arrays, without importing torch if there are none."""

import sys

import numpy as np

_NUMPY_FLOATS = {"torch.float16", "torch.float32", "torch.float64"}


def is_tensor(value) -> bool:
    """Return whether `value` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def tensor_values(tensor) -> np.ndarray:
    """Return a dense tensor's values, from any device.

    A view if the tensor is on the CPU.
    """
    tensor = tensor.detach().cpu()
    if tensor.dtype.is_floating_point and str(tensor.dtype) not in _NUMPY_FLOATS:
        tensor = tensor.float()  # bfloat16 and the 8-bit floats, which numpy lacks
    return tensor.resolve_conj().resolve_neg().numpy()


def without_tensors(values, name):
    """Return labels, numbers or features without tensors.

    Parameters
    ----------
    values : object
        A tensor, or a list or tuple that may hold tensors, becomes an array or a list
        of arrays. Anything else is returned as it is.
    name : str
        That of the parameter.

    Raises
    ------
    ValueError
        If a tensor holds no values, or such that no array can hold.
    """
    if isinstance(values, (list, tuple)) and any(map(is_tensor, values)):
        return [without_tensors(one, name) for one in values]
    if not is_tensor(values):
        return values
    try:
        if str(values.layout) != "torch.strided" or values.is_quantized:
            values = values.dequantize() if values.is_quantized else values.to_dense()
        return tensor_values(values)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"The {name!r} parameter must hold numbers that NumPy can hold. Got a "
            f"tensor of type {values.dtype} on {values.device} instead ({reason:.80})."
        ) from error
