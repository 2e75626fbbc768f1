"""Relative gradient norms, against torch's own gradient of the whole network."""

import copy

import numpy as np
import pytest
import torch
from networks import fix_weights
from numpy.testing import assert_allclose
from torch import nn

from skdeepfeat import BadImageError, FineTuneClassifier, FineTuneRegressor
from skdeepfeat.inspection import relative_gradient_norms

N = 12
SIZE = 16


class TwoStages(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6))
        self.last = nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, 4)
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        return self.head(self.last(self.stem(x).relu()).relu().mean((2, 3)))


def small(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": TwoStages(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "max_epochs": 1,
        "batch_size": 5,
        "random_state": 0,
        "cache": None,
        "device": "cpu",
    }
    return kind(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE, 3), np.uint8)


def norm(parameters):
    return torch.cat([one.flatten() for one in parameters]).norm().item()


def brute_force(fitted, X, targets, loss):
    body, head = copy.deepcopy(fitted.body_), copy.deepcopy(fitted.head_)
    body.requires_grad_(True), head.requires_grad_(True)
    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    images = (torch.from_numpy(X).permute(0, 3, 1, 2) / 255 - mean) / std
    body.head = head
    loss(body(images), targets).backward()
    parts = [body.stem, body.last, head]
    return [
        norm([p.grad for p in one.parameters()]) / norm(one.parameters())
        for one in parts
    ]


def test_a_fitted_classifier(pixels):
    y = np.arange(N) % 3
    fitted = small(label_smoothing=0.1).fit(pixels, y)
    found = relative_gradient_norms(fitted, pixels, y)
    assert list(found.index) == [0, 1, "head"]
    assert list(found["layer"]) == ["stem", "last", "head"]
    assert list(found["n_parameters"]) == [3 * 6 * 9 + 6 + 12, 6 * 8 * 9 + 8, 27]
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    wanted = brute_force(fitted, pixels, torch.from_numpy(y), loss)
    assert_allclose(found["relative_norm"], wanted, rtol=1e-4)


def test_a_fitted_regressor_with_fewer_samples(pixels):
    y = pixels[..., 0].mean((1, 2)).astype(float)
    fitted = small(FineTuneRegressor, unfreeze=(0,)).fit(pixels, y)
    found = relative_gradient_norms(fitted, pixels, y, n_samples=N)
    targets = torch.from_numpy((y - y.mean()) / y.std()).float()[:, None]
    wanted = brute_force(fitted, pixels, targets, nn.MSELoss())
    assert_allclose(found["relative_norm"], wanted, rtol=1e-4)
    few = relative_gradient_norms(fitted, pixels, y, n_samples=3)
    assert not np.allclose(few["relative_norm"], found["relative_norm"])


def test_nothing_changes(pixels):
    y = np.arange(N) % 3
    estimator = small(unfreeze=None, random_state=np.random.RandomState(0))
    before = estimator.random_state.get_state()[1].copy()
    first = relative_gradient_norms(estimator, pixels, y)
    assert not hasattr(estimator, "head_")
    assert (estimator.random_state.get_state()[1] == before).all()
    assert first.equals(relative_gradient_norms(estimator, pixels, y))
    estimator.fit(pixels, y)
    head = copy.deepcopy(estimator.head_.state_dict())
    relative_gradient_norms(estimator, pixels, y)
    assert all(torch.equal(v, head[k]) for k, v in estimator.head_.state_dict().items())


def test_a_shift_of_the_input_points_to_the_first_stage(pixels):
    """Labels that mean something else point to the head."""
    y = (pixels[..., 0].mean((1, 2)) > pixels[..., 1].mean((1, 2))).astype(int)
    fitted = small(max_epochs=40, learning_rate=0.01).fit(pixels, y)
    clean, dark, swapped = (
        relative_gradient_norms(fitted, X, labels)["relative_norm"]
        for X, labels in ((pixels, y), (pixels // 4, y), (pixels, 1 - y))
    )
    assert (dark / clean)[0] > 1
    assert (swapped / clean)["head"] > 1


def test_other_estimators_are_refused(pixels):
    with pytest.raises(TypeError, match="'estimator' .*relative_gradient_norms"):
        relative_gradient_norms(nn.Linear(2, 2), pixels, np.arange(N))


def test_a_broken_image_is_named_by_its_index(pixels, tmp_path):
    y = np.arange(N) % 3
    fitted = small().fit(pixels, y)
    X = [*pixels[:7], tmp_path / "nowhere.png", *pixels[8:]]
    with pytest.raises(BadImageError, match="index 7"):
        relative_gradient_norms(fitted, X, y)
