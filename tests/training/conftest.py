"""A network small enough to train in a test, and data for it."""

import numpy as np
import pytest
import torch
from torch import nn

from skdeepfeat._utils._random import seeded
from skdeepfeat.training import (
    Augmentation,
    FeatureData,
    LoopSettings,
    PixelData,
    TrainingRun,
    WeightAverage,
    make_loss,
    make_optimizer,
)

CPU = torch.device("cpu")


class Scaled(nn.Module):
    """uint8 pixels to [0, 1], as the neck does it."""

    def forward(self, images):
        return images.float() / 255 if images.dtype == torch.uint8 else images


def make_net(seed=0, batch_norm=False, dropout=0.0, n_outputs=3):
    """Make the same small network each time."""
    with seeded(seed):
        layers = [
            Scaled(),
            # A bias before a normalisation has no gradient but rounding errors.
            nn.Conv2d(3, 6, 3, stride=2, bias=not batch_norm),
            *([nn.BatchNorm2d(6)] if batch_norm else []),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(54, n_outputs),
        ]
    return nn.Sequential(*layers)


@pytest.fixture(name="make_net")
def _make_net():
    return make_net


def make_pixels(n=22, augment="flip_crop", seed=0, weighted=True):
    """Make `PixelData` of images 10 x 10, cropped to 8 x 8."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (n, 10, 10, 3), dtype=np.uint8)
    targets = torch.from_numpy(rng.integers(0, 3, n))
    weights = rng.uniform(0.5, 1.5, n) if weighted else np.ones(n)
    weights = torch.from_numpy((weights / weights.mean()).astype(np.float32))
    return PixelData(pixels, targets, weights, Augmentation(augment, (8, 8)))


@pytest.fixture(name="make_pixels")
def _make_pixels():
    return make_pixels


@pytest.fixture
def make_features():
    """Return a function that makes `FeatureData` with something to be learned."""

    def make(n=40, n_features=5, seed=0):
        rng = np.random.default_rng(seed)
        inputs = rng.normal(size=(n, n_features)).astype(np.float32)
        targets = torch.from_numpy(inputs[:, :3].argmax(1))
        return FeatureData(inputs, targets, torch.ones(n))

    return make


def make_run(
    model, *, loss=None, decay=0.0, optimizer="adamw", teacher=None, **settings
):
    """Wire a `TrainingRun` with short-cuts for its parts."""
    settings = {
        "phase": "body",
        "n_epochs": 3,
        "batch_size": 8,
        "learning_rate": 1e-2,
        **settings,
    }
    made = make_optimizer(
        optimizer,
        [list(model.named_parameters())],
        learning_rate=settings["learning_rate"],
        weight_decay=0.05,
    )
    average = WeightAverage(model, decay) if decay else None
    loss = loss or make_loss("cross_entropy", "single")
    settings = LoopSettings(**settings)
    return TrainingRun(
        model, made, loss, settings, CPU, average=average, teacher=teacher
    )


@pytest.fixture(name="make_run")
def _make_run():
    return make_run


@pytest.fixture
def weights_of():
    """Return a function that copies parameters and buffers by name."""

    def copy(model):
        tensors = [*model.named_parameters(), *model.named_buffers()]
        return {name: tensor.detach().clone() for name, tensor in tensors}

    return copy


@pytest.fixture
def assert_same():
    """Return a function that compares weights bit by bit, or up to a tolerance."""

    def compare(found, wanted, tolerance=0.0):
        assert found.keys() == wanted.keys()
        for name in wanted:
            torch.testing.assert_close(
                found[name], wanted[name], rtol=tolerance, atol=tolerance
            )

    return compare
