"""The network of a convolutional autoencoder."""

import math

import torch
from torch import nn

from .._utils._random import seeded

# Channels of the halvings of the image, first to last.
_CHANNELS = (32, 64, 128, 128)

# The smallest map, in pixels.
_SMALLEST = 4


class ConvNetwork(nn.Module):
    """Images to codes of a few numbers, and back.

    Parameters
    ----------
    size : tuple of (int, int)
        Height and width of the images, pixels.
    n_components : int
    body : TrainableNeck or None
        The encoder up to the code. None is a small network of convolutions.
    seed : int
    """

    def __init__(self, size, n_components, body, seed):
        super().__init__()
        n_halvings = max(1, int(math.log2(min(size) / _SMALLEST)))
        channels = _CHANNELS[:n_halvings]
        self._size = size
        # Sizes that are no multiples are decoded larger and cut.
        factor = 2 ** len(channels)
        self._map = (channels[-1], *(math.ceil(side / factor) for side in size))
        n_values = math.prod(self._map)
        with seeded(seed):
            self.body = body or _Encoder(channels)
            n_features = n_values if body is None else body.n_features
            self.to_code = nn.Linear(n_features, n_components)
            self.from_code = nn.Linear(n_components, n_values)
            self.decoder = _decoder(channels)

    def forward(self, images):
        """Return restored images as logits of values in [0, 1]."""
        return self.decode(self.encode(images))

    def encode(self, images):
        """Return codes (n, n_components) of images (n, 3, H, W), uint8 or in [0, 1]."""
        return self.to_code(self.body(images).flatten(1))

    def decode(self, codes):
        """Return logits (n, 3, H, W) of codes."""
        maps = self.from_code(codes).unflatten(1, self._map)
        return self.decoder(maps)[..., : self._size[0], : self._size[1]]


class _Encoder(nn.Module):
    """Images (n, 3, H, W), uint8 or in [0, 1], to maps; each block halves them."""

    def __init__(self, channels):
        super().__init__()
        self.blocks = nn.Sequential()
        for n_inputs, n_outputs in zip((3, *channels), channels, strict=False):
            self.blocks += nn.Sequential(
                nn.Conv2d(n_inputs, n_outputs, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(n_outputs),
                nn.ReLU(inplace=True),
            )
        self._factor = 2 ** len(channels)

    def forward(self, images):
        if images.dtype == torch.uint8:
            images = images.float() / 255
        height, width = images.shape[2:]
        pad = (0, -width % self._factor, 0, -height % self._factor)
        return self.blocks(nn.functional.pad(images - 0.5, pad))


def _decoder(channels):
    layers = [nn.ReLU(inplace=True)]
    sizes = [*channels[::-1], channels[0]]
    for n_inputs, n_outputs in zip(sizes, sizes[1:], strict=False):
        layers += [
            nn.ConvTranspose2d(n_inputs, n_outputs, 4, 2, padding=1, bias=False),
            nn.BatchNorm2d(n_outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(channels[0], 3, 3, padding=1))
