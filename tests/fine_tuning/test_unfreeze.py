"""`unfreeze`: which weights of the body a fit changes."""

import numpy as np
import pytest
import torch
from networks import fix_weights
from numpy.testing import assert_array_equal
from sklearn.base import clone
from torch import nn

from skdeepfeat import FineTuneClassifier

N = 16
SIZE = 16
STAGES = ("stem", "middle", "last")


class ThreeStages(nn.Module):
    def __init__(self):
        super().__init__()
        for name, width in zip(STAGES, (3, 6, 6), strict=True):
            block = nn.Conv2d(width, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
            self.add_module(name, nn.Sequential(*block, nn.ReLU()))
        self.head = nn.Linear(6, 4)
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        return self.head(self.last(self.middle(self.stem(x))).mean((2, 3)))


def small(**parameters):
    defaults = {
        "model": ThreeStages(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "max_epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.01,
        "random_state": 0,
        "cache": None,
        "device": "cpu",
    }
    return FineTuneClassifier(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (N, SIZE, SIZE, 3), dtype=np.uint8)
    return X, np.arange(N) % 2


def changed(fitted, earlier):
    """Return the names of the weights that differ between two bodies."""
    before = dict(earlier.named_parameters())
    return {
        name
        for name, weight in fitted.body_.named_parameters()
        if not torch.equal(weight, before[name])
    }


def weights(*modules):
    return {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}


CASES = {
    "first stage": ((0,), weights("stem.0", "stem.1")),
    "last stage": ((-1,), weights("last.0", "last.1")),
    "number of stages": (1, weights("last.0", "last.1")),
    "name": ("middle", weights("middle.0", "middle.1")),
    "list": (["middle.1", np.int64(0)], weights("stem.0", "stem.1", "middle.1")),
    "normalization": ("normalization", weights("stem.1", "middle.1", "last.1")),
}


@pytest.mark.parametrize("name", CASES)
def test_what_a_fit_changes(name, data):
    unfreeze, expected = CASES[name]
    estimator = small(unfreeze=unfreeze)
    assert changed(clone(estimator).fit(*data), estimator.model) == expected


def test_layer_decay_counts_all_stages(data):
    """The rate of a stage does not depend on which others are trained."""
    moves = []
    for decay in (1.0, 0.5):
        fitted = small(
            unfreeze=(0,), layer_decay=decay, optimizer="sgd", max_grad_norm=None,
            optimizer_params={}, weight_decay=0.0, ema_decay=0.0, max_epochs=1,
            batch_size=N, schedule="constant", learning_rate=1.0,
        ).fit(*data)  # fmt: skip
        moves.append(
            (fitted.body_.stem[0].weight - ThreeStages().stem[0].weight).detach()
        )
    np.testing.assert_allclose(moves[1], moves[0] / 8, rtol=0.01, atol=1e-5)


def test_warm_start_adapts_another_part(data):
    X, y = data
    estimator = small(unfreeze="all", warm_start=True).fit(X, y)
    body = estimator.body_
    estimator.set_params(unfreeze=(0, "last.1")).fit(255 - X, y)
    assert changed(estimator, body) == weights("stem.0", "stem.1", "last.1")
    assert estimator.n_epochs_ == 4


def test_saved_and_loaded(data, tmp_path):
    X, y = data
    fitted = small(unfreeze=(0, "last.1"), warm_start=True).fit(X, y)
    fitted.save(tmp_path / "c.safetensors")
    again = FineTuneClassifier.load(tmp_path / "c.safetensors", model=ThreeStages())
    assert again.unfreeze == (0, "last.1")
    assert_array_equal(
        again.fit(X, y).predict_proba(X), fitted.fit(X, y).predict_proba(X)
    )


def test_resumed(data, tmp_path):
    X, y = data
    n_left = 10

    def scoring(estimator, X, y):
        nonlocal n_left
        n_left -= 1
        if n_left == 0:
            raise InterruptedError
        return 0.0

    estimator = small(
        unfreeze=(0, "last.1"), max_epochs=3, checkpoint=tmp_path / "run.safetensors"
    ).set_params(scoring=scoring)
    whole = clone(estimator).set_params(checkpoint=None)
    expected = whole.fit(X, y, X_val=X, y_val=y).predict_proba(X)
    n_left = 3  # phase one and two epochs
    with pytest.raises(InterruptedError):
        clone(estimator).fit(X, y, X_val=X, y_val=y)
    assert (tmp_path / "run.safetensors").exists()
    resumed = clone(estimator).fit(X, y, X_val=X, y_val=y)
    assert_array_equal(resumed.predict_proba(X), expected)
    with pytest.raises(ValueError, match="other values of 'unfreeze'"):
        clone(estimator).set_params(unfreeze=(1,)).fit(X, y, X_val=X, y_val=y)


@pytest.mark.parametrize("unfreeze", [(), [True], (0.5,), ("",), (None,), ((0,),)])
def test_what_is_no_part(unfreeze, data):
    with pytest.raises(ValueError, match="^The 'unfreeze' parameter"):
        small(unfreeze=unfreeze).fit(*data)


@pytest.mark.parametrize("unfreeze", ["midle", (3,), (0, "head"), "al"])
def test_a_part_that_the_network_has_not(unfreeze, data):
    """It is noticed before any image is read."""
    unreadable = ["nowhere.png"] * N
    with pytest.raises(ValueError, match="^The 'unfreeze' .*2 ends with 'last'"):
        small(unfreeze=unfreeze).fit(unreadable, data[1])


def test_a_suggestion(data):
    with pytest.raises(ValueError, match="Did you mean 'middle'"):
        small(unfreeze="midle").fit(*data)
