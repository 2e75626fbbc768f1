"""Resizing and cropping of an image to the input size of a network.

The arithmetic is that of the two references: torchvision's `ImageClassification` preset
(torchvision/transforms/_presets.py) and timm's `transforms_imagenet_eval`
(timm/data/transforms_factory.py), both applied to PIL images. Sizes are exactly the
same, with the same rounding. Half a percent of the values differ by one level of 255,
rarely by two.
"""

import numpy as np
from PIL import Image

from skdeepfeat._utils._preprocessing import Preprocessing

# Pixels. An image of 1 x 100,000 resized to a shorter side of 256 would need 20 GB,
# most of which is cropped. Above this size, only what the crop keeps is resized.
_MAX_RESIZED = 2**24

# torch resizes uint8 with SIMD instructions, several times as fast as Pillow. It has no
# other interpolations with antialiasing.
_RESIZED_BY_TORCH = ("bilinear", "bicubic")


def fit_to_network(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Resize one image, then crop or pad it.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (H, W) or (H, W, 3)
    preprocessing : Preprocessing
        Its geometry is used; the network normalizes. If `resize` is an int and the crop
        is not square, `resize` is the length of the side that belongs to the crop's
        shorter side, as in timm. The image is scaled to cover the crop, or to lie
        within it for ``crop_mode="border"``.

    Returns
    -------
    ndarray of uint8, shape (crop_height, crop_width, 3), in C order and writable
    """
    size = resized_shape(pixels.shape[:2], preprocessing)
    window = crop_window(size, preprocessing.crop)
    kept = _resize(pixels, size, window, preprocessing.interpolation)
    height, width = kept.shape[:2]
    if kept.ndim == 2:
        # After the resize, which is done for each channel.
        kept = np.repeat(kept[:, :, None], 3, axis=2)
    # Always a new array: those of Pillow are read-only, which torch warns about.
    crop_height, crop_width = preprocessing.crop
    result = np.empty((crop_height, crop_width, 3), dtype=np.uint8)
    if (height, width) != (crop_height, crop_width):
        result[:] = preprocessing.fill
    top, left = (crop_height - height) // 2, (crop_width - width) // 2
    result[top : top + height, left : left + width] = kept
    return result


def resized_shape(shape, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the (height, width) to which an image of a (height, width) is resized."""
    resize, crop = preprocessing.resize, preprocessing.crop
    if not isinstance(resize, int):
        return resize[0], resize[1]
    height, width = shape
    if preprocessing.crop_mode == "border" or crop[0] != crop[1]:
        # timm's ResizeKeepRatio.
        target = [resize * side for side in crop]
        ratios = [height * min(crop) / target[0], width * min(crop) / target[1]]
        ratio = max(ratios) if preprocessing.crop_mode == "border" else min(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    # torchvision's resize: the longer side is rounded down.
    if height <= width:
        return resize, int(resize * width / height)
    return int(resize * height / width), resize


def crop_window(size, crop):
    """Return (top, left, height, width) of a crop in an image of a (height, width)."""
    height, width = min(size[0], crop[0]), min(size[1], crop[1])
    return round((size[0] - height) / 2), round((size[1] - width) / 2), height, width


def _resize(pixels, size, window, interpolation):
    """Resize to `size` and crop to the window (top, left, height, width)."""
    top, left, height, width = window
    resample = Image.Resampling[interpolation.upper()]
    if size[0] * size[1] > _MAX_RESIZED:
        down, right = pixels.shape[0] / size[0], pixels.shape[1] / size[1]
        box = (
            left * right,
            top * down,
            min((left + width) * right, pixels.shape[1]),
            min((top + height) * down, pixels.shape[0]),
        )
        image = Image.fromarray(pixels)
        return np.asarray(image.resize((width, height), resample, box=box))
    if size != pixels.shape[:2]:
        # If one side is enlarged and the other reduced, torch and Pillow round
        # differently in between, by up to 21 levels.
        is_one_way = (size[0] <= pixels.shape[0]) == (size[1] <= pixels.shape[1])
        if interpolation in _RESIZED_BY_TORCH and is_one_way:
            pixels = _resize_array_in_torch(pixels, size, interpolation)
        else:
            image = Image.fromarray(pixels)
            pixels = np.asarray(image.resize((size[1], size[0]), resample))
    return pixels[top : top + height, left : left + width]


def _resize_array_in_torch(pixels, size, interpolation):
    """Resize an array of uint8 like Pillow, up to one level of 255."""
    # Imported here, because finding files must not take the time to import torch.
    import torch

    # Arrays of Pillow are read-only, which `torch.from_numpy` warns about.
    try:
        image = torch.from_dlpack(pixels)
    except BufferError:  # read-only, and an older version of NumPy or torch
        image = torch.from_numpy(pixels.copy())
    is_gray = pixels.ndim == 2
    # torch keeps the channels last, which is faster, if the strides say so. With a new
    # axis in front of the channels, they would not.
    images = image[None, None] if is_gray else image[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(
        images, size=size, mode=interpolation, antialias=True
    )
    resized = resized[0, 0] if is_gray else resized.permute(0, 2, 3, 1)[0]
    return resized.numpy()
