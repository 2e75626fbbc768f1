"""JPEGs that a GPU decodes, resizes and crops.

nvJPEG produces slightly different pixels than libjpeg, which the weights were evaluated
with, so it is used on request only, and its features are cached separately.
torchvision's interface to nvJPEG is deprecated since 0.29, in favor of torchcodec. It
is used because all supported versions have it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skdeepfeat.exceptions import BadImageError

from ._decode import ORIENTATIONS
from ._decoder_messages import call_despite_warnings
from ._geometry import crop_window, is_resized_by_torch, resize_in_torch, resized_shape

logger = logging.getLogger(__name__)

_DECODING_DEVICES = ("cuda",)  # those of nvJPEG

# Decoded together, so that a batch of large photos fits into a GPU: 200 MB.
_PIXELS_AT_ONCE = 2**26


@dataclass(frozen=True)
class EncodedJpeg:
    """A JPEG for a device to decode.

    Attributes
    ----------
    data : bytes
    shape : tuple of (int, int)
        (height, width) before `orientation` is applied.
    orientation : int
        EXIF's number, 1 to 8.
    by_host : callable
        Takes no arguments. Decodes, resizes and crops the image without the device;
        raises BadImageError if it cannot be read.
    """

    data: bytes
    shape: tuple[int, int]
    orientation: int
    by_host: Callable[[], np.ndarray]

    def suits(self, preprocessing):
        """Return whether a device can also resize it."""
        is_transposed, _ = ORIENTATIONS[self.orientation]
        upright = self.shape[::-1] if is_transposed else self.shape
        return is_resized_by_torch(upright, preprocessing)


def check_jpeg_decoder(decoder, device):
    """Raise ValueError if `jpeg_decoder` does not fit the device.

    Parameters
    ----------
    decoder : {"pillow", "device"}
    device : torch.device
    """
    if decoder == "device" and device.type not in _DECODING_DEVICES:
        raise ValueError(
            "The 'jpeg_decoder' parameter can be 'device' on CUDA devices only. Got it "
            f"with device {str(device)!r}: use jpeg_decoder='pillow'."
        )


def fit_on_device(images, preprocessing, device):
    """Decode, resize and crop a batch on a device.

    Parameters
    ----------
    images : list of EncodedJpeg and ndarray of uint8, shape (height, width, 3)
        Arrays already have the network's input size.
    preprocessing : Preprocessing
        Its geometry is applied.
    device : torch.device

    Returns
    -------
    batch : Tensor of uint8, shape (n_good, crop_height, crop_width, 3)
        On the device, synchronized. The images that could be read, in their order.
    failures : dict of int to BadImageError
        The images that could not be read, by their position.
    """
    import torch

    fitted, failures = list(images), {}
    encoded = [i for i, one in enumerate(images) if isinstance(one, EncodedJpeg)]
    for part in _parts(encoded, images):
        jpegs = [images[i] for i in part]
        decoded = _decode_and_fit(jpegs, preprocessing, device)
        for i, jpeg, one in zip(part, jpegs, decoded, strict=True):
            try:
                fitted[i] = jpeg.by_host() if one is None else one
            except BadImageError as error:
                failures[i] = error
    good = [
        torch.from_numpy(one).to(device) if isinstance(one, np.ndarray) else one
        for i, one in enumerate(fitted)
        if i not in failures
    ]
    if not good:
        return torch.empty((0, *preprocessing.crop, 3), dtype=torch.uint8), failures
    batch = torch.stack(good)
    if device.type == "cuda":
        # The network runs on another stream.
        torch.cuda.current_stream(device).synchronize()
    return batch, failures


def _parts(encoded, images):
    """Yield the positions of JPEGs that are decoded together."""
    part, n_pixels = [], 0
    for i in encoded:
        height, width = images[i].shape
        if part and n_pixels + height * width > _PIXELS_AT_ONCE:
            yield part
            part, n_pixels = [], 0
        part.append(i)
        n_pixels += height * width
    if part:
        yield part


def _decode_and_fit(jpegs, preprocessing, device):
    """Return tensors (height, width, 3) on the device; all None if one JPEG fails.

    The decoder does not say which one failed, or the device is out of memory.
    """
    try:
        decoded = _decode([one.data for one in jpegs], device)
        return [
            _fit(_orient(pixels, one.orientation), preprocessing)
            for pixels, one in zip(decoded, jpegs, strict=True)
        ]
    except RuntimeError as error:
        logger.info(
            "Pillow decodes %d JPEGs that %s cannot decode (%s)",
            len(jpegs),
            device,
            str(error).partition("\n")[0][:200],
        )
        return [None] * len(jpegs)


def _decode(files, device):
    """Return tensors (3, height, width) on the device."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    # A copy, because torch warns about read-only memory.
    data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    return call_despite_warnings(decode_jpeg, data, ImageReadMode.RGB, device)


def _orient(pixels, orientation):
    is_transposed, flipped = ORIENTATIONS[orientation]
    if is_transposed:
        pixels = pixels.transpose(1, 2)
    return pixels.flip([axis + 1 for axis in flipped])


def _fit(pixels, preprocessing):
    """Do the same as `fit_to_network`, for a tensor (3, height, width)."""
    size = resized_shape(tuple(pixels.shape[1:]), preprocessing)
    if size != tuple(pixels.shape[1:]):
        pixels = resize_in_torch(pixels[None], size, preprocessing.interpolation)[0]
    top, left, height, width = crop_window(size, preprocessing.crop)
    kept = pixels[:, top : top + height, left : left + width].permute(1, 2, 0)
    crop_height, crop_width = preprocessing.crop
    if (height, width) == (crop_height, crop_width):
        return kept.contiguous()
    padded = kept.new_tensor(preprocessing.fill).repeat(crop_height, crop_width, 1)
    top, left = (crop_height - height) // 2, (crop_width - width) // 2
    padded[top : top + height, left : left + width] = kept
    return padded
