"""Augmentation of whole batches of uint8 pixels, drawn from a seed."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from joblib import cpu_count
from PIL import Image
from torch.nn import functional as F

from .._utils._device import try_on_device
from .._utils._parameter_errors import look_up

# By name: whether a random operation comes first, and whether a random part is taken
# instead of the center.
_KINDS = {None: (False, False), "flip_crop": (False, True), "trivial": (True, True)}

AUGMENTATIONS = tuple(_KINDS)

# Of random parts: the logarithm of the aspect ratio.
_LOG_STRETCH = np.log(4 / 3)


class Augmentation:
    """Turn batches of stored images into batches of inputs of the network.

    Parameters
    ----------
    kind : {"flip_crop", "trivial"}, callable or None
        None crops the center. ``"flip_crop"`` resizes a random part of half to all of
        the image, stretched by up to 4:3, and mirrors half of them (Szegedy et al.
        2015, who took parts from 8 % on). ``"trivial"`` first applies one random
        operation of random strength to each image (TrivialAugment: Müller and Hutter
        2021). A callable, such as a torchvision v2 transform, is called with a uint8
        tensor (n_images, 3, height, width), and its result is cropped to the center.
    size : tuple of (int, int)
        Height and width that the network sees, pixels.
    device : torch.device or None, default=None
        If it is a CUDA device, random parts are cut and resized there, and the batch
        stays there.
    area : tuple of (float, float), default=(0.5, 1.0)
        Of random parts: the smallest and the largest fraction of the image.
    """

    def __init__(self, kind, size, device=None, area=(0.5, 1.0)):
        self.size = size
        self._device = device
        self._area = area
        self._users_transform = kind if callable(kind) else None
        self._operation, self._takes_part = None, False
        if self._users_transform is None:
            operates, self._takes_part = look_up(_KINDS, kind, "augment")
            if operates:
                from torchvision.transforms import v2  # slow to import, seldom needed

                self._operation = v2.TrivialAugmentWide()

    @property
    def is_random(self):
        """Whether an image can look different each time."""
        return self._users_transform is not None or self._takes_part

    @property
    def draws_from_torch(self):
        """Whether torch's generators are drawn from."""
        return self._users_transform is not None or self._operation is not None

    def __call__(self, pixels, rng, n_total=None, positions=None):
        """Return one batch.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n_images, stored_height, stored_width, 3)
        rng : numpy.random.Generator
            For crops and mirroring; a transform draws from torch's own generator.
        n_total, positions : int, ndarray of int, default=None
            The size of the batch that these images are a part of, and their positions
            in it. Numbers are drawn for the whole batch, so that the result does not
            depend on the number of processes.

        Returns
        -------
        Tensor, shape (n_images, 3, height, width)
            uint8, or the type that the transform returns.
        """
        images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        # A process may have no image of a small batch; transforms need one.
        if self._users_transform is not None and len(pixels):
            return self._cut(self._users_transform(images), len(pixels))
        if not self._takes_part:
            return crop_center(images, self.size)
        if self._operation is not None and len(pixels):
            # It draws once per call.
            images = torch.stack([self._operation(image) for image in images])
            pixels = images.permute(0, 2, 3, 1).numpy()
        if positions is None:
            n_total, positions = len(pixels), np.arange(len(pixels))
        return self.drawn(pixels, draw_parts(rng, n_total)[positions])

    def drawn(self, pixels, draws):
        """Return one batch for given draws, rows of `draw_parts`.

        Only without a transform that draws from torch's generators.
        """
        return random_parts(pixels, self.size, draws, self._area, self._device)

    def _cut(self, images, n_images):
        """Return the center of what a user's transform returned."""
        wanted = (n_images, 3, *self.size)
        if isinstance(images, torch.Tensor):
            if images.ndim == 4:
                images = crop_center(images, self.size)
            if tuple(images.shape) == wanted:
                return images
            found = f"a tensor of shape {tuple(images.shape)}"
        else:
            found = f"an object of type {type(images).__name__}"
        raise ValueError(
            "The 'augment' parameter must be a transform that turns a tensor of uint8, "
            f"shape (n_images, 3, height, width), into one of shape {wanted} or with "
            f"larger images. Got {found} instead."
        )


def crop_center(images, size):
    """Return the center of images (n_images, 3, H, W), at most `size` large."""
    (height, width), (rows, columns) = images.shape[-2:], size
    top = max(0, round((height - rows) / 2.0))
    left = max(0, round((width - columns) / 2.0))
    return images[..., top : top + rows, left : left + columns]


def draw_parts(rng, n_images):
    """Return numbers in [0, 1), shape (n_images, 5), that determine random parts."""
    return rng.random((n_images, 5))


def random_parts(pixels, size, draws, area, device=None):
    """Return random parts of the images, resized, half of them mirrored.

    `area` is the smallest and the largest fraction of the image, and `draws` are rows
    of `draw_parts`; the other parameters are those of `Augmentation`.
    """
    boxes = _random_boxes(draws[:, :4], pixels.shape[1:3], size, area)
    flips = draws[:, 4] < 0.5
    if device is not None and device.type == "cuda" and len(pixels):

        def resize():
            images = torch.from_numpy(np.ascontiguousarray(pixels)).pin_memory()
            images = images.to(device, non_blocking=True).permute(0, 3, 1, 2)
            return resized_parts(images, boxes, flips, size)

        images, cause = try_on_device(device, resize)
        if cause is None:
            return images
    result = np.empty((len(pixels), *size, 3), np.uint8)

    def fill(i):
        # Pillow takes boxes with fractions of pixels, and releases the GIL.
        part = Image.fromarray(pixels[i]).resize(
            size[::-1], Image.Resampling.BILINEAR, box=tuple(boxes[i])
        )
        result[i] = np.asarray(part)[:, ::-1] if flips[i] else part

    with ThreadPoolExecutor(cpu_count()) as pool:
        for _ in pool.map(fill, range(len(pixels))):
            pass
    return torch.from_numpy(result).permute(0, 3, 1, 2)


def resized_parts(images, boxes, flips, size):
    """Return boxes of images, resized by torch without antialiasing.

    Parts are hardly larger than what the network sees, so that there is little to
    smooth.

    Parameters
    ----------
    images : Tensor of uint8, shape (n, 3, height, width)
    boxes : ndarray, shape (n, 4)
        Left, top, right and bottom, pixels.
    flips : ndarray of bool, shape (n,)
    size : tuple of (int, int)
    """
    height, width = images.shape[-2:]
    left, top, right, bottom = boxes.T
    # From places in the result to places in the image, both from -1 to 1.
    maps = np.zeros((len(boxes), 2, 3), np.float32)
    maps[:, 0, 0] = np.where(flips, left - right, right - left) / width
    maps[:, 1, 1] = (bottom - top) / height
    maps[:, 0, 2] = (left + right) / width - 1
    maps[:, 1, 2] = (top + bottom) / height - 1
    maps = torch.from_numpy(maps).to(images.device)
    grid = F.affine_grid(maps, (len(boxes), 3, *size), align_corners=False)
    parts = F.grid_sample(
        images.float(), grid, padding_mode="border", align_corners=False
    )
    return parts.round_().to(torch.uint8)


def _random_boxes(draws, stored, size, area):
    """Return boxes (left, top, right, bottom) in pixels of the stored images.

    Parameters
    ----------
    draws : ndarray of float in [0, 1), shape (n_images, 4)
        For the area, the aspect ratio, and the position down and right.
    stored, size : tuple of (int, int)
        Height and width of the images, and of the network's input.
    area : tuple of (float, float)
        Smallest and largest fraction of the image.
    """
    areas = area[0] + (area[1] - area[0]) * draws[:, 0]
    stretch = np.exp(_LOG_STRETCH * (2 * draws[:, 1] - 1) / 2)
    # Relative to the largest box with the aspect ratio of the input.
    unit = min(stored[0] / size[0], stored[1] / size[1])
    heights = np.minimum(unit * size[0] * np.sqrt(areas) / stretch, stored[0])
    widths = np.minimum(unit * size[1] * np.sqrt(areas) * stretch, stored[1])
    tops = draws[:, 2] * (stored[0] - heights)
    lefts = draws[:, 3] * (stored[1] - widths)
    return np.stack([lefts, tops, lefts + widths, tops + heights], axis=1)
