"""Two random views of each image, for learning without labels."""

import numpy as np
import torch
from torch.nn import functional as F

from ._augment import Augmentation

# Of random parts: the fraction of the image. SimCLR takes 8 % to all of it, from
# scratch; a pretrained network gains nothing from parts that show no object.
_AREA = (0.2, 1.0)

# The strengths of Chen et al., "A simple framework for contrastive learning" (2020),
# for CIFAR-10: half of those for ImageNet.
_JITTERED = 0.8
_BRIGHTNESS = _CONTRAST = _SATURATION = 0.4
_HUE = 0.1  # of a full turn
_GRAY = 0.2
_BLURRED = 0.5
_SIGMA = (0.1, 2.0)
_BLUR_WIDTH = 0.1  # the kernel's, as a fraction of the image's

# From RGB to lightness and two chroma axes (NTSC), and back.
_TO_CHROMA = torch.tensor(
    [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
)
_FROM_CHROMA = torch.linalg.inv(_TO_CHROMA)


class PairViews:
    """Turn stored images into two views each.

    Parameters
    ----------
    kind : "views" or callable
        ``"views"`` takes a random part, mirrors it, and changes its colors; some views
        become gray or blurred (Chen et al. 2020). A callable, such as a torchvision v2
        transform, is called twice, as `Augmentation` calls it.
    size : tuple of (int, int)
        Height and width that the network sees, pixels.
    device : torch.device or None, default=None
        As for `Augmentation`.
    """

    def __init__(self, kind, size, device=None):
        self._changes_colors = not callable(kind)
        kind = "flip_crop" if self._changes_colors else kind
        self._augment = Augmentation(kind, size, device, _AREA)

    @property
    def draws_from_torch(self):
        """Whether torch's generators are drawn from."""
        return self._augment.draws_from_torch

    def __call__(self, first, second, rng, n_total, positions):
        """Return the views of a part of a batch.

        Parameters
        ----------
        first, second : ndarray of uint8, shape (n, stored_height, stored_width, 3)
            The images of the pairs, which may be the same.
        rng : numpy.random.Generator
        n_total, positions : int, ndarray of int
            See `Augmentation`.

        Returns
        -------
        Tensor, shape (n, 2, 3, height, width)
            Floats in [0, 1], or what a user's transform returns.
        """
        views = [self._view(one, rng, n_total, positions) for one in (first, second)]
        return torch.stack(views, dim=1)

    def _view(self, pixels, rng, n_total, positions):
        parts = self._augment(pixels, rng, n_total, positions)
        if not self._changes_colors:
            return parts
        draws = torch.from_numpy(rng.random((n_total, 9))[positions]).float()
        draws = draws.to(parts.device)
        images = parts.float().div_(255)
        if not len(images):
            return images
        return _blur(_change_colors(images, draws[:, :6]), draws[:, 6:])


def _change_colors(images, draws):
    """Return images (n, 3, H, W) of changed brightness, contrast, saturation and hue.

    `draws` are numbers in [0, 1), shape (n, 6).
    """
    spread = 2 * draws - 1
    jittered = draws[:, 0] < _JITTERED
    brightness = torch.where(jittered, 1 + _BRIGHTNESS * spread[:, 1], 1.0)
    contrast = torch.where(jittered, 1 + _CONTRAST * spread[:, 2], 1.0)
    saturation = torch.where(jittered, 1 + _SATURATION * spread[:, 3], 1.0)
    saturation = torch.where(draws[:, 5] < _GRAY, 0.0, saturation)
    angle = torch.where(jittered, 2 * np.pi * _HUE * spread[:, 4], 0.0)
    # Saturation scales the chroma plane, and hue turns it.
    turn = torch.zeros(len(images), 3, 3, device=images.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = saturation * angle.cos()
    turn[:, 2, 1] = saturation * angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    to_chroma = _TO_CHROMA.to(images.device)
    matrices = _FROM_CHROMA.to(images.device) @ turn @ to_chroma
    turned = torch.einsum("nij,njhw->nihw", matrices, images)
    gray = torch.einsum("j,njhw->n", to_chroma[0], images)
    gray = gray / images[0, 0].numel()
    scale = (brightness * contrast)[:, None, None, None]
    offset = (brightness * (1 - contrast) * gray)[:, None, None, None]
    return (turned * scale + offset).clamp_(0, 1)


def _blur(images, draws):
    """Return images (n, 3, H, W), some of them blurred by a Gaussian each."""
    n, _, height, width = images.shape
    radius = max(1, round(_BLUR_WIDTH * min(height, width) / 2))
    if radius >= min(height, width):
        return images
    sigma = _SIGMA[0] + (_SIGMA[1] - _SIGMA[0]) * draws[:, 1]
    offsets = torch.arange(-radius, radius + 1, device=images.device)
    kernels = torch.exp(-(offsets**2) / (2 * sigma[:, None] ** 2))
    kernels = kernels / kernels.sum(1, keepdim=True)
    sharp = (offsets == 0).float()
    kernels = torch.where(draws[:, :1] < _BLURRED, kernels, sharp)
    # As channels of one image, so that each has its own kernel.
    kernels = kernels.repeat_interleave(3, 0)[:, None]
    rows = F.pad(images.reshape(1, n * 3, height, width), [radius] * 4, mode="reflect")
    rows = F.conv2d(rows, kernels[..., None], groups=n * 3)
    rows = F.conv2d(rows, kernels[:, :, None], groups=n * 3)
    return rows.reshape(images.shape)
