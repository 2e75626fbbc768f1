"""What frozen stages return is computed once per view, and the fit stays the same."""

import itertools
import tempfile

import numpy as np
import pytest
import torch
from networks import fix_weights
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from skdeepfeat import FineTuneClassifier
from skdeepfeat.fine_tuning._frozen_outputs import FrozenOutputs, KeptRows

N, SIZE, N_EPOCHS = 16, 16, 4


class Counting(nn.Conv2d):
    """Count the images that go through in training."""

    n_images = 0

    def forward(self, x):
        Counting.n_images += len(x)
        return super().forward(x)


class ThreeStages(nn.Module):
    def __init__(self):
        super().__init__()
        for name, width in {"stem": 3, "middle": 6, "last": 6}.items():
            kind = Counting if name == "stem" else nn.Conv2d
            block = kind(width, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
            self.add_module(name, nn.Sequential(*block, nn.ReLU()))
        self.head = nn.Linear(6, 4)
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        return self.head(self.last(self.middle(self.stem(x))).mean((2, 3)))


def small(**parameters):
    defaults = {
        "model": ThreeStages(),
        "preprocessing": {"resize": SIZE + 4, "crop": (SIZE, SIZE)},
        "max_epochs": N_EPOCHS,
        "unfreeze": 1,
        "batch_size": 5,
        "learning_rate": 0.01,
        "random_state": 0,
        "cache": None,
        "device": "cpu",
    }
    return FineTuneClassifier(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (N, SIZE + 4, SIZE + 4, 3), dtype=np.uint8)
    return X, np.arange(N) % 2


def as_floats(images):
    return images.float() / 255


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"n_views": 2},
        {"augment": None, "unfreeze": 2},
        {"augment": "trivial", "n_views": 2, "unfreeze": ("last",)},
        {"unfreeze": "gradual", "n_views": 3},
        {"n_views": 2, "precision": "bfloat16", "ema_decay": 0.0},
        {"augment": as_floats, "n_views": 2},
        {"n_views": 2, "unfreeze": "all"},
        {"n_views": 2, "mixup": 0.2},
    ],
)
def test_a_fit_is_the_same_with_and_without(data, parameters, monkeypatch):
    kept = small(**parameters).fit(*data)
    monkeypatch.setattr(FrozenOutputs, "can_replace", lambda data, fit: False)
    whole = small(**parameters).fit(*data)
    tolerance = 0.03 if "precision" in parameters else 1e-5
    assert_allclose(
        kept.history_["train_loss"], whole.history_["train_loss"], rtol=tolerance
    )
    for one, other in zip(
        kept.body_.parameters(), whole.body_.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def n_stem_images(data, **parameters):
    """Return the number of images that frozen layers run on in the epochs of a fit."""
    numbers = []
    for n_epochs in (N_EPOCHS, 1):
        before = Counting.n_images
        small(max_epochs=n_epochs, **parameters).fit(*data)
        numbers.append(Counting.n_images - before)
    return numbers[0] - numbers[1]


@pytest.mark.parametrize(
    ("parameters", "n_further_views"),
    [
        ({}, 3),  # of epochs two to four
        ({"n_views": 1}, 0),
        ({"n_views": 2}, 1),
        ({"n_views": 10**12}, 3),
        ({"augment": None}, 0),
        ({"n_views": 2, "unfreeze": "all"}, 3),
    ],
)
def test_each_view_goes_through_frozen_layers_once(data, parameters, n_further_views):
    assert n_stem_images(data, **parameters) == n_further_views * N


def test_views_come_again_and_resumed_fits_see_the_same(data, tmp_path):
    X, y = data
    path = tmp_path / "fit.safetensors"
    whole = small(n_views=2).fit(X, y)

    class Interrupted(Exception):
        pass

    calls = itertools.count()

    def score(estimator, X, y):
        if next(calls) == 2:
            raise Interrupted
        return 0.0

    settings = {"n_views": 2, "checkpoint": path}
    with pytest.raises(Interrupted):
        small(**settings, scoring=score).fit(X, y, X_val=X, y_val=y)
    assert path.exists()
    resumed = small(**settings, scoring=score).fit(X, y, X_val=X, y_val=y)
    for one, other in zip(
        resumed.body_.parameters(), whole.body_.parameters(), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_without_a_temporary_directory_rows_stay_in_memory(monkeypatch):
    def gettempdir():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", gettempdir)
    kept = KeptRows(8, 3, max_bytes_in_memory=24)
    rows = np.arange(24, dtype=np.float32).reshape(8, 3)
    kept.completed(np.arange(8), np.arange(8), rows)
    assert kept.missing(np.arange(8)).tolist() == [2, 3, 4, 5, 6, 7]


def test_rows_beyond_the_bound_are_not_kept():
    rows = np.arange(24, dtype=np.float32).reshape(8, 3)
    kept = KeptRows(8, 3, max_bytes_in_memory=24, max_bytes=5 * 12)
    for numbers in (np.array([6, 1, 3]), np.array([1, 0, 2, 7]), np.arange(8)):
        missing = kept.missing(numbers)
        found = kept.completed(numbers, missing, rows[numbers[missing]])
        assert_array_equal(found, rows[numbers])
    assert_array_equal(kept.missing(np.arange(8)), [4, 5, 7])
    assert isinstance(kept._rows, np.memmap)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2"])
def test_odd_numbers_of_views_are_named(data, value):
    with pytest.raises(ValueError, match="'n_views'"):
        small(n_views=value).fit(*data)
