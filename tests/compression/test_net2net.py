"""`widen` and `deepen`: the same function before training, and ready for more."""

import copy

import numpy as np
import pytest
import torch
from networks import fix_weights
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from torch import nn

from skdeepfeat import (
    FineTuneClassifier,
    FineTuneRegressor,
    PretrainedFeatureExtractor,
)
from skdeepfeat.compression import compress, deepen, widen
from skdeepfeat.networks import changes_of

SIZE = 16
RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (24, SIZE, SIZE, 3), dtype=np.uint8)
y = np.arange(24) % 3


def sequential():
    """Return a plain network, with a depthwise layer and flattened maps."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.MaxPool2d(4),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 16, 10),
        nn.ReLU(),
        nn.Linear(10, 4),
    )
    fix_weights(network, scale=1 / 3)
    generator = torch.Generator().manual_seed(0)
    network[1].running_mean.uniform_(-1, 1, generator=generator)
    network[1].running_var.uniform_(0.5, 2, generator=generator)
    return network


class Residual(nn.Module):
    """Two blocks with a sum, of which the second keeps its shape."""

    def __init__(self, activation=torch.relu):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.block = Block(8, activation)
        self.head = nn.Linear(8, 3)
        self.activation = activation
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        x = self.block(self.activation(self.stem(x)))
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, n, activation):
        super().__init__()
        self.wide = nn.Conv2d(n, 2 * n, 3, padding=1)
        self.narrow = nn.Conv2d(2 * n, n, 3, padding=1)
        self.activation = activation

    def forward(self, x):
        return x + self.narrow(self.activation(self.wide(x)))


class Smooth(nn.Module):
    """No residual block and no ReLU."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.last = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 3)
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        x = nn.functional.silu(self.last(nn.functional.silu(self.stem(x))))
        return self.head(x.mean((2, 3)))


def fit(model, kind=FineTuneClassifier, **parameters):
    if isinstance(model, nn.Module):
        parameters["preprocessing"] = {"resize": SIZE, "crop": (SIZE, SIZE)}
    defaults = {"max_epochs": 1, "device": "cpu", "cache": None, "random_state": 0}
    return kind(model, **{**defaults, **parameters}).fit(X, y)


def n_parameters(estimator):
    return sum(p.numel() for p in estimator.body_.parameters())


CALLS = {
    "widen": lambda estimator: widen(estimator, 1.5, random_state=0),
    "deepen": lambda estimator: deepen(estimator, -1),
}


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("make", [sequential, Residual])
def test_the_function_is_the_same_and_can_be_trained(make, call, kind, tmp_path):
    fitted = fit(make(), kind)
    before = copy.deepcopy(fitted.body_.state_dict())
    larger = CALLS[call](fitted)
    assert n_parameters(larger) > n_parameters(fitted)
    wanted = fitted.transform(X)
    assert_allclose(larger.transform(X), wanted, atol=1e-5 * abs(wanted).max())
    # The original is as it was.
    for name, value in fitted.body_.state_dict().items():
        assert_array_equal(value, before[name])
    assert changes_of(fitted.body_) == changes_of(fitted.model) == []
    # The file describes the changes as data.
    larger.save(tmp_path / "larger.safetensors")
    loaded = kind.load(tmp_path / "larger.safetensors", model=make())
    assert changes_of(loaded.body_) == changes_of(larger.body_)
    assert_array_equal(loaded.predict(X), larger.predict(X))
    # Training goes on, with gradients for what was added.
    trained = copy.deepcopy(larger).set_params(
        warm_start=True, learning_rate=1e-2, batch_size=8
    )
    trained.fit(X, y)
    assert n_parameters(trained) == n_parameters(larger)
    for name, value in trained.body_.named_parameters():
        end = name.startswith(("head", "10."))  # the old head
        assert end or not torch.equal(value, larger.body_.get_parameter(name)), name
    # A clone is the original network.
    assert changes_of(clone(larger).fit(X, y).body_) == []


def test_duplicates_learn_different_things():
    wide = widen(fit(sequential()), 2, random_state=0)
    trained = copy.deepcopy(wide).set_params(warm_start=True, learning_rate=1e-2)
    kernels = trained.fit(X, y).body_[0].weight.flatten(1)
    assert len(wide.body_[0].weight.flatten(1).unique(dim=0)) <= 8
    assert len(kernels.unique(dim=0)) == 16


@pytest.mark.slow
def test_several_calls_in_a_row(tmp_path):
    fitted = fit(sequential())
    larger = widen(deepen(widen(deepen(fitted, 0), 1.5), 0), 1.3)
    wanted = fitted.predict_proba(X)
    assert_allclose(larger.predict_proba(X), wanted, atol=1e-5)
    larger.save(tmp_path / "larger.safetensors")
    loaded = FineTuneClassifier.load(
        tmp_path / "larger.safetensors", model=sequential()
    )
    assert_array_equal(loaded.predict_proba(X), larger.predict_proba(X))
    # Pruning makes it smaller again.
    small = compress(
        larger, X, y, method="prune", max_score_drop=1.0, fine_tune_epochs=0,
        runtimes=["torch"], random_state=0,
    )  # fmt: skip
    assert n_parameters(small) < n_parameters(larger)
    small.save(tmp_path / "small.safetensors")
    loaded = FineTuneClassifier.load(tmp_path / "small.safetensors", model=sequential())
    assert_array_equal(loaded.predict_proba(X), small.predict_proba(X))


def test_the_new_batch_normalization_keeps_the_statistics():
    """In training mode it changes little, if what comes in is normal."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip
    fix_weights(network[1], scale=1.0)
    deep = deepen(fit(network, max_epochs=0), 0).body_
    new = deep[1]
    assert [type(one).__name__ for one in new] == [
        "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d",
    ]  # fmt: skip
    values = torch.randn(4000, 8, 1, 1, generator=torch.Generator().manual_seed(0))
    scale, shift = new[0].weight[:, None, None], new[0].bias[:, None, None]
    rectified = (values * scale + shift).relu()
    rectified = rectified[:, :, 0, 0]
    assert_allclose(new[3].running_mean, rectified.mean(0), atol=0.05)
    assert_allclose(new[3].running_var, rectified.var(0), atol=0.1)


@pytest.mark.slow
def test_an_installed_network(tmp_path):
    fitted = fit("efficientnet_lite0", image_size=32, max_epochs=0)
    wanted = fitted.predict_proba(X)
    for call in CALLS:
        larger = CALLS[call](fitted)
        assert_allclose(larger.predict_proba(X), wanted, atol=1e-5)
    larger.save(tmp_path / "larger.safetensors")
    loaded = FineTuneClassifier.load(tmp_path / "larger.safetensors")
    assert_array_equal(loaded.predict_proba(X), larger.predict_proba(X))
    rows = PretrainedFeatureExtractor(larger.body_, image_size=32, cache=None)
    assert rows.transform(X).shape == (len(X), 1280)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "resnet18", "mobilenet_v2", "convnext_tiny",
        "timm/test_resnet", "timm/convnext_atto", "timm/mobilenetv3_small_050",
    ],
)  # fmt: skip
def test_families(name):
    fitted = fit(name, weights="random", image_size=64, max_epochs=0)
    wanted = fitted.transform(X)
    for call in (CALLS["widen"], lambda e: deepen(e, -2), CALLS["deepen"]):
        larger = call(fitted)
        assert_allclose(larger.transform(X), wanted, atol=1e-5 * abs(wanted).max())
        assert n_parameters(larger) > sum(p.numel() for p in fitted_body(fitted))


def fitted_body(fitted):
    return (fitted.body_ or fitted._fitted_neck().trainable().network).parameters()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: widen(fit(sequential()), 1.0), ValueError, "'factor'"),
        (lambda: widen(fit(sequential()), "2"), ValueError, "'factor'"),
        (lambda: deepen(fit(sequential()), 9), ValueError, "'stage'.*Got 9"),
        (lambda: deepen(fit(sequential()), "0"), ValueError, "'stage'"),
        (lambda: widen("resnet18", 2), TypeError, "'estimator'.*widen"),
        (lambda: deepen(PretrainedFeatureExtractor(), 0), TypeError, "'estimator'"),
        (lambda: widen(FineTuneClassifier(), 2), Exception, "not fitted"),
        (lambda: deepen(fit(Smooth()), -1), ValueError, "'stage'.*ResNet.*Smooth"),
        (
            lambda: widen(fit(nn.Sequential(nn.Flatten(), nn.Linear(768, 2))), 2),
            ValueError,
            "'estimator'.*ResNet",
        ),
    ],
)
def test_bad_input(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_without_relu_blocks_can_be_repeated():
    fitted = fit(Residual(nn.functional.silu))
    deep = deepen(fitted, -1)
    assert changes_of(deep.body_) == [{"layer": "block", "kind": "repeated"}]
    assert_allclose(deep.transform(X), fitted.transform(X), rtol=1e-5, atol=1e-5)
