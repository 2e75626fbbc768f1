"""`activation_l1`: zeros that pruning by `apoz` finds."""

import numpy as np
import pytest
from networks import SmallNet, fix_weights
from torch import nn

from skdeepfeat import FineTuneClassifier, FineTuneRegressor
from skdeepfeat.compression import compress

SIZE = 16


class Wide(nn.Module):
    """More channels than three colors need."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, stride=2, padding=1)
        self.last = nn.Conv2d(32, 24, 3, stride=2, padding=1)
        self.head = nn.Linear(24, 4)
        fix_weights(self, scale=1 / 4)

    def forward(self, x):
        return self.head(self.last(self.stem(x).relu()).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    pixels = rng.integers(0, 120, (90, SIZE, SIZE, 3))
    pixels[np.arange(90), :, :, y] += 130
    return pixels.astype(np.uint8), y


def make(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": Wide(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "augment": None,
        "max_epochs": 30,
        "learning_rate": 0.02,
        "layer_decay": 1.0,
        "weight_decay": 0.0,
        "batch_size": 30,
        "ema_decay": 0.0,
        "cache": None,
        "random_state": 0,
    }
    return kind(**{**defaults, **parameters})


def test_pruning_by_zeros_finds_channels(images):
    X, y = images
    n_left = {}
    for factor in (0.0, 0.2):
        fitted = make(activation_l1=factor).fit(X, y)
        assert fitted.score(X, y) == 1.0
        small = compress(
            fitted, X, y, method="prune", criterion="apoz", max_score_drop=0.0,
            fine_tune_epochs=0, runtimes=["torch"], random_state=0,
        )  # fmt: skip
        assert small.score(X, y) == 1.0
        n_left[factor] = small.body_.stem.out_channels
    assert n_left[0.2] <= n_left[0.0] / 2


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
def test_it_is_a_penalty_of_phase_two(kind, images):
    X, y = images
    # At a rate that changes nothing, the losses differ by the penalty alone.
    still = {"max_epochs": 1, "learning_rate": 1e-12}
    with_l1 = make(kind, activation_l1=0.5, **still).fit(X, y).history_
    without = make(kind, **still).fit(X, y).history_
    assert with_l1["train_loss"][0] == without["train_loss"][0]
    assert with_l1["train_loss"][1] > without["train_loss"][1]


class Smooth(SmallNet):
    def forward(self, x):
        return self.head(nn.functional.silu(self.last(self.stem(x))).mean((2, 3)))


class Linear(SmallNet):
    def forward(self, x):
        return self.head(self.last(self.stem(x)).mean((2, 3)))


@pytest.mark.parametrize(
    ("network", "word"), [(Smooth, "silu"), (Linear, "no activation")]
)
def test_only_for_networks_with_relus(network, word, images):
    X, y = images
    with pytest.raises(ValueError, match="^The 'activation_l1' parameter") as error:
        make(model=network(), activation_l1=0.1).fit(X, y)
    assert word in str(error.value)
    # Without a phase two, it is not used.
    make(model=network(), activation_l1=0.1, unfreeze=None).fit(X, y)


@pytest.mark.parametrize("value", [-0.1, np.nan, "0.1", None])
def test_bad_values(value, images):
    with pytest.raises(ValueError, match="'activation_l1' parameter"):
        make(activation_l1=value).fit(*images)
