"""Networks are gone when nobody runs them, without a search for garbage."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.networks.running import _loaded_networks


@pytest.fixture
def collected(monkeypatch):
    """Return whether garbage was looked for, as each network was given back."""
    found = []

    def noted(device, *, collects=True):
        found.append(collects)

    monkeypatch.setattr(_loaded_networks, "free_device_memory", noted)
    gc.disable()
    yield found
    gc.enable()


def extract(**parameters):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 48, 48, 3), np.uint8)
    extractor = PretrainedFeatureExtractor(
        cache=None, image_size=32, runtime="torch", **parameters
    )
    return extractor.transform(pixels)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"model": "efficientnet_lite0", "layer": ["blocks.2", None]},
        {"model": "resnet18", "weights": "random"},
    ],
)
def test_a_network_is_gone_after_its_last_batch(parameters, precision, collected):
    # Below float32, batch norms are folded, in further copies.
    extract(precision=precision, **parameters)
    assert collected and not any(collected)


class Chain(nn.Module):
    def __init__(self, refers_to_itself):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        if refers_to_itself:
            self.layers.parent = [self]

    def forward(self, x):
        return self.layers(x).mean((2, 3))


@pytest.mark.parametrize("refers_to_itself", [False, True])
def test_garbage_is_looked_for_where_a_module_refers_to_itself(
    refers_to_itself, collected
):
    torch.manual_seed(0)
    extract(model=Chain(refers_to_itself))
    assert collected
    assert all(collected) if refers_to_itself else not any(collected)
