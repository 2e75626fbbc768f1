"""The learning-rate range test: what it finds, and that it leaves no trace."""

import copy

import numpy as np
import pytest
import torch
from networks import fix_weights
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.datasets import load_digits
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn import functional as F

from skdeepfeat import FineTuneClassifier, FineTuneRegressor, TrainingDivergedError
from skdeepfeat.fine_tuning._range_test import (
    _make_stop,
    _suggest,
    learning_rate_range_test,
)

N, SIZE = 24, 12
LABELS = np.array(["red", "green", "blue"])[np.arange(N) % 3]


class SmallNet(nn.Module):
    """Two stages with fixed weights, with batch normalisation or without."""

    def __init__(self, normalised=True):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2)
        self.norm = nn.BatchNorm2d(6) if normalised else nn.Identity()
        self.second = nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, 2)
        fix_weights(self.first, self.second, self.head, scale=1 / 3)

    def features(self, x):
        return self.second(self.norm(self.first(x)).relu()).relu().mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture(scope="module")
def pixels():
    """Noisy images with more of one colour than of the others."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (N, SIZE, SIZE, 3))
    images[np.arange(N), :, :, np.arange(N) % 3] += 100
    return images.astype(np.uint8)


def small(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": SmallNet(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "max_epochs": 2,
        "batch_size": 8,
        "random_state": 0,
    }
    return kind(**{**defaults, **parameters})


# No trace


def state_of(value):
    """Return all that can be seen of a value, so that two can be compared."""
    if isinstance(value, nn.Module):
        tensors = {k: v.clone() for k, v in value.state_dict().items()}
        flags = {name: module.training for name, module in value.named_modules()}
        learns = {name: p.requires_grad for name, p in value.named_parameters()}
        grads = {name: p.grad for name, p in value.named_parameters()}
        return tensors, flags, learns, grads
    if isinstance(value, np.random.RandomState):
        return value.get_state(legacy=False)
    return copy.deepcopy(value)


def states(estimator):
    return {
        "attributes": {
            name: state_of(value) for name, value in vars(estimator).items()
        },
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif hasattr(a, "equals"):
        assert a.equals(b)
    elif a is not None and not callable(a):
        assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("condition", "random_state"),
    [("new", None), ("fitted", 3), ("warm", "instance"), ("fitted", "numpy's own")],
)
def test_leaves_no_trace(pixels, condition, random_state):
    if random_state == "instance":
        random_state = np.random.RandomState(5)
    elif random_state == "numpy's own":
        random_state = np.random.mtrand._rand
    est = small(
        random_state=random_state,
        warm_start=condition == "warm",
        dropout=0.2,
        mixup=0.2,
    )
    if condition != "new":
        est.fit(pixels, LABELS)
        predicted = est.predict_proba(pixels)
    before = states(est)
    found = learning_rate_range_test(est, pixels, LABELS, n_steps=12)
    assert_same(states(est), before)
    if condition != "new":
        assert_array_equal(est.predict_proba(pixels), predicted)
    # The random state is where it was, so the test can be repeated.
    again = learning_rate_range_test(est, pixels, LABELS, n_steps=12)
    assert_array_equal(again.losses, found.losses)


def test_a_fit_after_it_is_the_fit_without_it(pixels):
    alone = small().fit(pixels, LABELS)
    est = small()
    learning_rate_range_test(est, pixels, LABELS, n_steps=12)
    est.fit(pixels, LABELS)
    assert_array_equal(est.predict_proba(pixels), alone.predict_proba(pixels))


def test_writes_and_reads_no_checkpoint(pixels, tmp_path):
    path = tmp_path / "run.safetensors"
    learning_rate_range_test(small(checkpoint=path), pixels, LABELS, n_steps=10)
    assert not path.exists()
    path.write_bytes(b"of another fit")
    learning_rate_range_test(small(checkpoint=path), pixels, LABELS, n_steps=10)
    assert path.read_bytes() == b"of another fit"


# What it does

PLAIN = {
    "augment": None,
    "label_smoothing": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": None,
    "batch_size": N,
}


def test_steps_are_those_of_a_loop_by_hand(pixels):
    net = SmallNet(normalised=False)
    est = small(
        model=net, optimizer="sgd", optimizer_params={}, layer_decay=0.5, **PLAIN
    )  # fmt: skip
    weight = np.random.default_rng(1).uniform(0.5, 2, N)
    found = learning_rate_range_test(
        est, pixels, LABELS, sample_weight=weight,
        min_learning_rate=1e-3, max_learning_rate=0.3, n_steps=15,
    )  # fmt: skip

    start = small(model=net, unfreeze=None, **PLAIN).fit(pixels, LABELS, weight)
    net, head = copy.deepcopy(net), copy.deepcopy(start.head_)
    preprocessing = est._resolve_neck().preprocessing
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([preprocessing.mean, preprocessing.std])[..., None, None]
    images = (images - mean) / std
    targets = torch.from_numpy(np.searchsorted(start.classes_, LABELS))
    weights = torch.from_numpy(weight / weight.mean() / N).float()
    # The head learns at the full rate, the stages before it at half of the one behind.
    shares = [(head, 1.0), (net.second, 0.5), (net.first, 0.25)]
    losses = []
    for rate in np.geomspace(1e-3, 0.3, 15):
        for part, _ in shares:
            part.requires_grad_(True).zero_grad()
        each = F.cross_entropy(head(net.features(images)), targets, reduction="none")
        loss = (each * weights).sum()
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for part, share in shares:
                for parameter in part.parameters():
                    parameter -= rate * share * parameter.grad
    assert_allclose(found.learning_rates, np.geomspace(1e-3, 0.3, 15))
    assert_allclose(found.losses, losses, rtol=1e-4)
    assert losses[-1] < 0.9 * losses[0]


def test_smoothed_losses_are_means_over_neighbours(pixels):
    found = learning_rate_range_test(small(), pixels, LABELS, n_steps=50)
    at_rest = learning_rate_range_test(
        small(), pixels, LABELS,
        min_learning_rate=1e-14, max_learning_rate=1.01e-14, n_steps=50,
    )  # fmt: skip
    n = len(found.losses)
    without = at_rest.losses[:n]
    assert np.ptp(without) > 0.01  # batches differ
    learned = found.losses - without
    for i in range(n):
        weights = [np.exp(-abs(i - j) / 2) for j in range(n)]
        mean = sum(w * x for w, x in zip(weights, learned, strict=True)) / sum(weights)
        assert_allclose(found.smoothed_losses[i], without.mean() + mean, rtol=1e-5)
    # At rest there is nothing but the difference between batches, so nothing is left.
    assert_allclose(at_rest.smoothed_losses, at_rest.losses.mean(), rtol=1e-5)


def test_begins_with_the_fitted_weights_when_warm(pixels):
    net = SmallNet(normalised=False)
    est = small(
        model=net, warm_start=True, max_epochs=6, learning_rate=3e-3, **PLAIN
    ).fit(pixels, LABELS)
    rates = {"min_learning_rate": 1e-12, "max_learning_rate": 1e-11, "n_steps": 10}
    right = est.predict_proba(pixels)[
        np.arange(N), np.searchsorted(est.classes_, LABELS)
    ]
    warm = learning_rate_range_test(est, pixels, LABELS, **rates)
    assert_allclose(warm.losses, -np.log(right).mean(), rtol=1e-4)
    est.set_params(warm_start=False)
    cold = learning_rate_range_test(est, pixels, LABELS, **rates)
    assert cold.losses[0] > 1.1 * warm.losses[0]


def test_gradual_unfreezing_is_tried_with_all_of_the_body(pixels):
    found = [
        learning_rate_range_test(small(unfreeze=how), pixels, LABELS, n_steps=12).losses
        for how in ("all", "gradual", 1)
    ]
    assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_stops_when_the_loss_has_diverged(pixels):
    est = small(optimizer="sgd", max_grad_norm=None)
    found = learning_rate_range_test(
        est, pixels, LABELS, max_learning_rate=1e6, n_steps=60
    )
    assert len(found.losses) < 60
    assert len(found.losses) == len(found.learning_rates) == len(found.smoothed_losses)
    assert np.isfinite(found.losses).all()
    assert found.learning_rates[-1] < 1e6


def test_stops_at_four_times_the_minimum():
    stop, seen = _make_stop(100), []
    falling_then_rising = [*np.linspace(2, 1, 50), *np.geomspace(1, 100, 50)]
    for loss in falling_then_rising:
        seen.append(loss)
        if stop(seen):
            break
    # By hand: the mean whose memory fades by exp(-1/4) a step.
    means = [
        np.average(seen[: i + 1], weights=np.exp(-np.arange(i + 1)[::-1] / 4))
        for i in range(len(seen))
    ]
    assert means[-1] > 4 * min(means) >= means[-2]
    # A single small first loss is no minimum to go by.
    assert not _make_stop(100)([1e-6])


def test_suggestion_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-6, 1, 121)
    fall = 2 / (1 + np.exp(3 * (np.log10(rates) + 3)))  # steepest at 1e-3
    blow_up = np.where(rates > 0.05, 50 * rates, 0)
    assert_allclose(_suggest(rates, fall + blow_up), 1e-3, rtol=0.2)
    # What falls after a blow-up does not count.
    peak = 100 * np.exp(-((np.log10(rates) + 0.5) ** 2) / 0.01)
    assert_allclose(_suggest(rates, fall + 0.1 + peak - (rates < 0.1)), 1e-3, rtol=0.2)
    assert np.isnan(_suggest(rates, np.log(rates)))


def test_regressor_and_broken_images(pixels):
    X = [*pixels, b"not an image"]
    y = np.append(pixels.mean((1, 2, 3)), 0.0)
    est = small(FineTuneRegressor, on_error="nan")
    with pytest.warns(UserWarning, match="index 24"):
        found = learning_rate_range_test(est, X, y, n_steps=20)
    assert np.isfinite(found.losses).all()
    assert not hasattr(est, "n_features_in_")


@pytest.mark.parametrize("unfreeze", [None, 0])
def test_refuses_an_estimator_that_trains_no_body(pixels, unfreeze):
    with pytest.raises(ValueError, match=f"'unfreeze' .* Got {unfreeze!r} instead"):
        learning_rate_range_test(small(unfreeze=unfreeze), pixels, LABELS)


def test_refuses_bad_arguments(pixels):
    with pytest.raises(ValueError, match="'max_learning_rate' .* Got 0.001 instead"):
        learning_rate_range_test(
            small(), pixels, LABELS, min_learning_rate=0.01, max_learning_rate=0.001
        )
    with pytest.raises(ValueError, match="'n_steps' .* Got 3 instead"):
        learning_rate_range_test(small(), pixels, LABELS, n_steps=3)
    with pytest.raises(TypeError, match="Got Pipeline instead"):
        learning_rate_range_test(make_pipeline(small()), pixels, LABELS)


def test_says_when_there_is_no_loss_from_the_start(pixels):
    est = small(optimizer="sgd", max_grad_norm=None)
    with pytest.raises(TrainingDivergedError, match="smaller 'min_learning_rate'"):
        learning_rate_range_test(
            est, pixels, LABELS, min_learning_rate=1e36, max_learning_rate=1e37
        )


@pytest.mark.slow
def test_suggests_a_usual_rate_for_the_embedded_network():
    digits = load_digits()
    est = FineTuneClassifier(
        image_size=32, batch_size=16, freeze_batch_norm=False, random_state=0
    )
    images, labels = digits.images[:64] / 16, digits.target[:64]
    found = learning_rate_range_test(est, images, labels, n_steps=25)
    # AdamW's usual rates.
    assert 1e-4 < found.suggestion < 1e-2
