"""Augmentation of whole batches of uint8 pixels, drawn from a seed."""

import numpy as np
import torch

__all__ = ["AUGMENTATIONS", "Augmentation", "crop_centre"]

AUGMENTATIONS = ("none", "flip_crop", "trivial")


class Augmentation:
    """Batches of stored images to batches of what the network sees.

    Parameters
    ----------
    kind : {"none", "flip_crop", "trivial"} or callable
        ``"none"`` cuts out the centre. ``"flip_crop"`` cuts out a random place and
        mirrors every other image. ``"trivial"`` does so, too, after one random
        operation of random strength an image (TrivialAugment: Müller and Hutter
        2021). A torchvision v2 transform, or its like, is called with a uint8 tensor
        (n_images, 3, height, width), and what it returns is cut to the centre.
    size : tuple of (int, int)
        Height and width that the network sees, pixels.
    """

    def __init__(self, kind, size):
        self.kind = kind
        self.size = size
        self._transform = kind if callable(kind) else None
        if kind == "trivial":
            from torchvision.transforms import v2  # seconds, and seldom needed

            self._transform = _EachByItself(v2.TrivialAugmentWide())

    def __call__(self, pixels, rng, n_total=None, positions=None):
        """Return one batch.

        Parameters
        ----------
        pixels : ndarray of uint8, shape (n_images, stored_height, stored_width, 3)
        rng : numpy.random.Generator
            Places and mirrorings; a transform draws from torch's own generator.
        n_total, positions : int, ndarray of int, default=None
            The size of the batch that these images are a part of, and their places in
            it: numbers are drawn for all of it, so that the parts that several
            processes make are those that one would have made.

        Returns
        -------
        Tensor, shape (n_images, 3, height, width)
            uint8, or what the transform makes of it.
        """
        # A process may have no share of a small batch; transforms want an image.
        if self._transform is not None and len(pixels):
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
            images = self._transform(images)
            if self.kind != "trivial":
                return self._cut(images, len(pixels))
            pixels = images.permute(0, 2, 3, 1).numpy()
        if self.kind == "none":
            images = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
            return crop_centre(images, self.size)
        if positions is None:
            n_total, positions = len(pixels), np.arange(len(pixels))
        return _flip_and_crop(pixels, self.size, rng, n_total, positions)

    def _cut(self, images, n_images):
        """Return the centre of what a user's transform returned."""
        wanted = (n_images, 3, *self.size)
        if isinstance(images, torch.Tensor):
            if images.ndim == 4:
                images = crop_centre(images, self.size)
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


def crop_centre(images, size):
    """Return the centre of images (n_images, 3, H, W), at most `size` large."""
    (height, width), (rows, columns) = images.shape[-2:], size
    top = max(0, round((height - rows) / 2.0))
    left = max(0, round((width - columns) / 2.0))
    return images[..., top : top + rows, left : left + columns]


def _flip_and_crop(pixels, size, rng, n_total, positions):
    height, width = size
    tops = rng.integers(0, pixels.shape[1] - height + 1, n_total)[positions]
    lefts = rng.integers(0, pixels.shape[2] - width + 1, n_total)[positions]
    flips = rng.integers(0, 2, n_total)[positions]
    result = np.empty((len(pixels), height, width, 3), np.uint8)
    for i, (top, left, flip) in enumerate(zip(tops, lefts, flips, strict=True)):
        window = pixels[i, top : top + height, left : left + width]
        result[i] = window[:, ::-1] if flip else window
    return torch.from_numpy(result).permute(0, 3, 1, 2)


class _EachByItself:
    """Call a transform for each image, as v2's draw once for a whole batch."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, images):
        return torch.stack([self.transform(image) for image in images])
