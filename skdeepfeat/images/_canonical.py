"""The form that every image is brought to: uint8, gray (H, W) or RGB (H, W, 3).

The functions work on one image or, with leading axes, on several of one size. torch is
not imported if X holds no tensors.
"""

import numpy as np

from skdeepfeat._utils._tensors import tensor_values
from skdeepfeat.exceptions import BadImageError

CHANNELS = (1, 2, 3, 4)  # gray, gray + alpha, RGB, RGB + alpha

# Rounding error of float32 in a value that should be 0 or 1.
_ROUNDING = 1e-6
_WHITE = 255


def canonical_image(array):
    """Return an array of a user in canonical form.

    Parameters
    ----------
    array : ndarray of shape (H, W), (H, W, 1), (H, W, 2), (H, W, 3) or (H, W, 4)

    Returns
    -------
    ndarray of uint8, shape (H, W) or (H, W, 3)

    Raises
    ------
    BadImageError
        If the shape or the values are not those of an image.
    """
    problem = _shape_problem(array.shape)
    problem = problem or value_problem(array.dtype, [array], "image")
    if problem:
        raise BadImageError(problem)
    return canonical_pixels(array, has_channels=array.ndim == 3)


def canonical_pixels(values, *, has_channels):
    """Return valid values (see `value_problem`) in canonical form.

    Parameters
    ----------
    values : ndarray of shape (..., H, W, C) or, without channels, (..., H, W)
    has_channels : bool
        Whether the last axis holds the channels.

    Returns
    -------
    ndarray of uint8, shape (..., H, W) or (..., H, W, 3), in C order
    """
    pixels = _to_uint8(values)
    if has_channels:
        n_channels = pixels.shape[-1]
        if n_channels == 1:
            pixels = pixels[..., 0]
        elif n_channels == 2:
            pixels = _over_white(pixels[..., 0], pixels[..., 1])
        elif n_channels == 4:
            pixels = _over_white(pixels[..., :3], pixels[..., 3:])
    return np.ascontiguousarray(pixels)


def _to_uint8(values):
    kind, itemsize = values.dtype.kind, values.dtype.itemsize
    if kind == "u" and itemsize == 1:
        return values
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(_WHITE)
    if kind == "u":
        # 65535 = 255 * 257, so this is the rounded value * 255 / 65535.
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    # float16 is too coarse for values from 0 to 255.
    scaled = values.astype(np.float32) if itemsize < 4 else values
    return np.rint(scaled * 255).astype(np.uint8)


def _over_white(color, alpha):
    if alpha.size and alpha.min() == _WHITE:
        return color
    # In 16 bits: the largest sum is 255 * 255 + 127. Division by 255, rounded.
    alpha = alpha.astype(np.uint16)
    mixed = color * alpha + (_WHITE - alpha) * np.uint16(_WHITE)
    return ((mixed + 127) // 255).astype(np.uint8)


def value_range(blocks):
    """Return the lowest and the highest value of several arrays, NaN if any is NaN."""
    ranges = [(block.min(), block.max()) for block in blocks]
    # np.min, unlike min, lets NaN through.
    return np.min([low for low, _ in ranges]), np.max([high for _, high in ranges])


def value_problem(dtype, blocks, name):
    """Return what is wrong with the values of an array and how to fix it, or None.

    Parameters
    ----------
    dtype : numpy.dtype
    blocks : iterable of ndarray
        The values, looked at only if the type does not tell their range.
    name : str
        The name of the array in the advice: ``X``, ``image``.

    Returns
    -------
    str or None
    """
    if dtype.kind == "b" or (dtype.kind == "u" and dtype.itemsize <= 2):
        return None
    if dtype.kind in "iu":
        low, high = value_range(blocks)
        advice = f"use {name}.astype(np.uint8)"
        if low < 0 or high > 255:
            advice = f"bring the values to 0 to 255 and {advice}"
        return (
            f"integers must be uint8 (0 to 255) or uint16 (0 to 65535): {advice}. "
            f"Got dtype {dtype} with values from {low} to {high}"
        )
    if dtype.kind != "f":
        return f"dtype {dtype!s:.80} does not hold pixel values; use uint8"
    low, high = map(float, value_range(blocks))
    if low >= -_ROUNDING and high <= 1 + _ROUNDING:
        return None
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"the values must be finite, but there is NaN or infinity in {name}"
    return (
        f"float values must be in [0, 1]: {_advice(low, high, name)}. "
        f"Got values from {low:.6g} to {high:.6g}"
    )


def _advice(low, high, name):
    if low >= 0 and 127 < high <= 255:
        return f"use {name} / 255, or pass uint8"
    if low >= -0.5 and high <= 1.5:
        return f"use np.clip({name}, 0, 1) if these are rounding or resizing overshoots"
    if low >= -1 - _ROUNDING and high <= 1 + _ROUNDING:
        return f"use ({name} + 1) / 2, or pass uint8"
    if low >= 0:
        return f"use {name} / {name}.max(), or pass uint8"
    return f"use ({name} - {name}.min()) / ({name}.max() - {name}.min()), or pass uint8"


def _shape_problem(shape):
    if len(shape) not in (2, 3):
        advice = {
            0: ": use image.item() if it is a path or bytes",
            1: ": use image.tobytes() if these are the bytes of an image file",
        }
        return (
            "an image must have shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
            f"{advice.get(len(shape), '')}. Got shape {shape}"
        )
    if 0 in shape:
        return f"it has no pixels. Got shape {shape}"
    if len(shape) == 3 and shape[2] not in CHANNELS:
        if shape[0] in CHANNELS:
            return (
                "the channels must come last: use image.transpose(1, 2, 0). "
                f"Got shape {shape}"
            )
        return f"an image has 1, 3 or 4 channels. Got shape {shape}"
    return None


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
