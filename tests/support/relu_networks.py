"""Networks for looking into: of modules, of functions, of tokens, of known fields."""

import torch
from networks import fix_weights
from torch import nn

from skdeepfeat import PretrainedFeatureExtractor

SIZE = 16
PREPROCESSING = {
    "resize": (SIZE, SIZE),
    "crop": (SIZE, SIZE),
    "mean": (0.4, 0.5, 0.6),
    "std": (0.2, 0.3, 0.25),
}


def normalized(images):
    """Return images (n, height, width, 3) of uint8 as the network sees them."""
    mean, std = (
        torch.tensor(PREPROCESSING[name]).reshape(1, 3, 1, 1)
        for name in ("mean", "std")
    )
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - mean) / std


class ReluNet(nn.Sequential):
    """Convolutions, a max-pool and an average, with ReLUs in place unless told so."""

    def __init__(self, inplace=True, activation=nn.ReLU):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.act1 = activation(inplace=inplace)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.act2 = activation(inplace=inplace)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.act3 = activation(inplace=inplace)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(8, 3)
        fix_weights(self, scale=1 / 3)


def up_to(network, name):
    """Return the modules of a `ReluNet` up to one of them, as a network."""
    names = [one for one, _ in network.named_children()]
    return nn.Sequential(*list(network)[: names.index(name) + 1])


class FunctionalNet(ReluNet):
    """The same values, with functions instead of modules for the activations."""

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = self.conv2(nn.functional.max_pool2d(x, 2))
        nn.functional.relu(x, inplace=True)  # the returned value is not used
        return self.head(self.conv3(x).relu_().mean((2, 3)))


class KnownFields(nn.Module):
    """Units of `second` see 13 x 13 pixels, every 4 pixels (3 + 2 * 1 + 4 * 2)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2)
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(4, 5, 3)
        self.head = nn.Linear(5, 2)
        fix_weights(self)

    def forward(self, x):
        x = self.pool(self.first(x).relu())
        return self.head(self.second(x).relu().mean((2, 3)))


def tiny_transformer(**options):
    """Return a transformer of timm with 4 x 4 patches, a class token and registers."""
    from timm.models.vision_transformer import VisionTransformer

    network = VisionTransformer(
        img_size=SIZE, patch_size=4, embed_dim=12, depth=2, num_heads=2,
        num_classes=3, reg_tokens=2, **options,
    )  # fmt: skip
    fix_weights(network, scale=1 / 3)
    return network.eval()


def make_extractor(network=None, **parameters):
    return PretrainedFeatureExtractor(
        ReluNet() if network is None else network,
        preprocessing=PREPROCESSING,
        cache=None,
        **parameters,
    )
