"""JPEGs whose bytes go to a GPU, to be decoded, resized and cropped there.

Only on request. nvJPEG's pixels are not those of libjpeg, which the reference
transforms of the weights were made with, so their rows are cached separately.
torchvision's decoder of it is deprecated since 0.29, in favor of torchcodec's; it is
what there is in all versions that are supported.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from skdeepfeat.exceptions import BadImageError

from ._geometry import is_resized_by_torch, resize_in_torch, resized_shape, window_of
from ._quiet import call_despite_warnings

__all__ = ["EncodedJpeg", "check_jpeg_decoder", "fit_on_device"]

logger = logging.getLogger(__name__)

# nvJPEG's, through torchvision.
_DECODING_DEVICES = ("cuda",)

# What is decoded at once, so that a batch of large photos fits into a GPU: 200 MB.
_PIXELS_AT_ONCE = 2**26

# EXIF's orientations: whether rows and columns change places, then which of (height,
# width) is turned round.
_ORIENT = {
    1: (False, ()),
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


@dataclass(frozen=True)
class EncodedJpeg:
    """A JPEG on its way to a device.

    Attributes
    ----------
    data : bytes
    shape : tuple of (int, int)
        (height, width) as it is stored, before `orientation` is applied.
    orientation : int
        EXIF's number, 1 to 8.
    by_host : callable
        ``by_host()`` returns the image fitted to the network by Pillow, or raises the
        BadImageError that says what is wrong with it.
    """

    data: bytes
    shape: tuple[int, int]
    orientation: int
    by_host: Callable[[], np.ndarray]

    @property
    def upright_shape(self):
        """(height, width) as it is seen."""
        is_turned, _ = _ORIENT[self.orientation]
        return self.shape[::-1] if is_turned else self.shape

    def suits(self, preprocessing):
        """Return whether a device can bring it to the network's size, too."""
        return is_resized_by_torch(self.upright_shape, preprocessing)


def check_jpeg_decoder(decoder, device):
    """Raise ValueError if a device cannot decode JPEGs and is asked to.

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
        Arrays are of the network's size already.
    preprocessing : Preprocessing
        Its geometry is applied.
    device : torch.device

    Returns
    -------
    batch : Tensor of uint8, shape (n_good, crop_height, crop_width, 3)
        On the device, complete. The images that could be read, in their order.
    failures : dict of int to BadImageError
        Those of the others, by their position.
    """
    import torch

    fitted, failures = [None] * len(images), {}
    encoded = [i for i, one in enumerate(images) if isinstance(one, EncodedJpeg)]
    for part in _parts(encoded, images):
        jpegs = [images[i] for i in part]
        found = _decode_and_fit(jpegs, preprocessing, device)
        for i, one in zip(part, found or [None] * len(part), strict=True):
            try:
                fitted[i] = images[i].by_host() if one is None else one
            except BadImageError as error:
                failures[i] = error
    good = []
    for i, one in enumerate(images):
        if i not in failures:
            one = one if fitted[i] is None else fitted[i]
            if isinstance(one, np.ndarray):
                one = torch.from_numpy(one).to(device)
            good.append(one)
    if not good:
        return torch.empty((0, *preprocessing.crop, 3), dtype=torch.uint8), failures
    batch = torch.stack(good)
    if device.type == "cuda":
        # The network runs on a stream of its own.
        torch.cuda.current_stream(device).synchronize()
    return batch, failures


def _parts(encoded, images):
    """Yield the positions of JPEGs that are decoded at once."""
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
    """Return tensors (height, width, 3) on the device; None if one of them fails.

    The decoder does not say which, and the device's memory may not suffice.
    """
    try:
        decoded = _decode([one.data for one in jpegs], device)
        return [
            _fit(_orient(pixels, one.orientation), preprocessing)
            for pixels, one in zip(decoded, jpegs, strict=True)
        ]
    except RuntimeError as error:
        logger.info(
            "%d JPEGs are decoded by Pillow: %s cannot (%s)",
            len(jpegs),
            device,
            str(error).partition("\n")[0][:200],
        )
        return None


def _decode(files, device):
    """Return tensors (3, height, width) on the device."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    # A copy, because torch warns of memory that it could not write to.
    data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    return call_despite_warnings(decode_jpeg, data, ImageReadMode.RGB, device)


def _orient(pixels, orientation):
    is_turned, flipped = _ORIENT[orientation]
    if is_turned:
        pixels = pixels.transpose(1, 2)
    return pixels.flip([axis + 1 for axis in flipped]) if flipped else pixels


def _fit(pixels, preprocessing):
    """Do to a tensor (3, height, width) what `fit_to_network` does to an array."""
    size = resized_shape(tuple(pixels.shape[1:]), preprocessing)
    if size != tuple(pixels.shape[1:]):
        pixels = resize_in_torch(pixels[None], size, preprocessing.interpolation)[0]
    top, height = window_of(size[0], preprocessing.crop[0])
    left, width = window_of(size[1], preprocessing.crop[1])
    kept = pixels[:, top : top + height, left : left + width].permute(1, 2, 0)
    crop_height, crop_width = preprocessing.crop
    if (height, width) == (crop_height, crop_width):
        return kept.contiguous()
    padded = kept.new_tensor(preprocessing.fill).repeat(crop_height, crop_width, 1)
    top, left = (crop_height - height) // 2, (crop_width - width) // 2
    padded[top : top + height, left : left + width] = kept
    return padded
