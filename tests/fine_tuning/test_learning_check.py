"""The sanity check: what can be learned by heart, and what the others are told."""

import copy

import numpy as np
import pytest
import skimage
import torch
from networks import fix_weights
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.pipeline import make_pipeline
from torch import nn

from skdeepfeat import BadImageError, FineTuneClassifier, FineTuneRegressor
from skdeepfeat.fine_tuning._learning_check import (
    LearningCheck,
    check_can_learn,
)
from skdeepfeat.fine_tuning._trial import choose_rows

N, SIZE = 60, 12
NUMBERS = np.arange(N) % 3
LABELS = np.array(["red", "green", "blue"])[NUMBERS]


class SmallNet(nn.Module):
    """Two stages with fixed weights and a batch normalisation."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, stride=2)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 32, 3, stride=2)
        self.head = nn.Linear(32, 2)
        fix_weights(self.first, self.second, self.head, scale=1 / 4)

    def forward(self, x):
        x = self.second(self.norm(self.first(x)).relu()).relu()
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def pixels():
    """Noisy images with more of one colour than of the others."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (N, SIZE, SIZE, 3))
    images[np.arange(N), :, :, NUMBERS] += 100
    return images.astype(np.uint8)


def small(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": SmallNet(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "learning_rate": 0.01,
        "layer_decay": 1.0,
        "random_state": 0,
    }
    return kind(**{**defaults, **parameters})


# What can learn


def test_a_sound_set_up_can(pixels):
    check = check_can_learn(small(), pixels, LABELS)
    assert check.can_learn is True
    assert check.score == 1.0
    assert check.n_samples == 20
    assert check.n_epochs == 60 == len(check.losses)
    assert check.losses[-1] < 0.1 * check.losses[0]
    assert str(check) == check.message
    assert check.message.startswith("The set-up can learn: accuracy 1.000 on the 20 ")


def test_whatever_hinders_learning_by_heart_is_switched_off(pixels, tmp_path):
    hindered = small(
        augment="trivial", ema_decay=0.999, checkpoint=tmp_path / "run",
        class_weight={label: 0.0 for label in LABELS}, dropout=0.9, early_stopping=True,
        head_init="logistic", label_smoothing=0.9, mixup=5.0, schedule="one_cycle",
        test_time_augmentation="flip_crop", warmup=0.9, weight_decay=100.0,
    )  # fmt: skip
    plain = small(
        augment=None, ema_decay=0.0, label_smoothing=0.0, schedule="constant",
        weight_decay=0.0,
    )  # fmt: skip
    found = check_can_learn(hindered, pixels, LABELS)
    assert found.can_learn
    # Not a little, but altogether.
    assert_array_equal(found.losses, check_can_learn(plain, pixels, LABELS).losses)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
@pytest.mark.parametrize("form", ["labels", "several labels"])
def test_every_kind_of_classification(pixels, form, loss):
    y = LABELS if form == "labels" else np.eye(3, dtype=int)[NUMBERS]
    assert check_can_learn(small(loss=loss), pixels, y).can_learn


@pytest.mark.parametrize("n_targets", [1, 2])
def test_regression(pixels, n_targets):
    y = 1e4 + 1e3 * pixels.mean((1, 2))[:, :n_targets]
    y = y[:, 0] if n_targets == 1 else y
    check = check_can_learn(small(FineTuneRegressor), pixels, y)
    assert check.can_learn
    assert 0.95 <= check.score <= 1
    assert "R^2" in check.message


def test_the_head_alone(pixels):
    check = check_can_learn(small(unfreeze=None), pixels, LABELS, max_epochs=200)
    assert check.can_learn
    assert check.n_epochs == 200
    check = check_can_learn(small(unfreeze=None), pixels, LABELS, max_epochs=2)
    assert not check.can_learn
    assert "Only the head is trained (unfreeze=None)" in check.message


@pytest.mark.parametrize("random_state", [None, "instance"])
@pytest.mark.parametrize("fitted", [False, True])
def test_leaves_the_estimator_alone(pixels, random_state, fitted):
    if random_state == "instance":
        random_state = np.random.RandomState(5)
    est = small(random_state=random_state, max_epochs=1, warm_start=True)
    if fitted:
        est.fit(pixels, LABELS)
        predicted = est.predict_proba(pixels)
    parameters, known = est.get_params(), set(vars(est))
    weights = copy.deepcopy(est.model.state_dict())
    before = np.random.get_state(legacy=False), torch.get_rng_state()
    if random_state is not None:
        own = random_state.get_state(legacy=False)
    check_can_learn(est, pixels, LABELS, max_epochs=2)
    assert set(vars(est)) == known
    assert all(est.get_params()[name] is value for name, value in parameters.items())
    for name, tensor in est.model.state_dict().items():
        assert torch.equal(tensor, weights[name])
    after = np.random.get_state(legacy=False), torch.get_rng_state()
    assert_array_equal(after[0]["state"]["key"], before[0]["state"]["key"])
    assert after[0]["state"]["pos"] == before[0]["state"]["pos"]
    assert torch.equal(after[1], before[1])
    if random_state is not None:
        now = random_state.get_state(legacy=False)
        assert_array_equal(now["state"]["key"], own["state"]["key"])
        assert now["state"]["pos"] == own["state"]["pos"]
    if fitted:
        assert_array_equal(est.predict_proba(pixels), predicted)


# Which images


def rows_taken(X, y, kind=FineTuneClassifier, n_samples=20):
    targets = small(kind)._prepare(X, y).targets
    return choose_rows(targets, n_samples, np.random.RandomState(0))


def test_rare_classes_are_taken_as_well_as_frequent_ones(pixels):
    y = np.repeat([0, 1, 2], [40, 17, 3])
    counts = np.bincount(y[rows_taken(pixels, y)])
    assert_array_equal(np.sort(counts), [3, 8, 9])
    # More classes than samples: each at most once.
    rows = rows_taken(pixels, np.arange(N) // 2, n_samples=12)
    assert len(np.unique(rows // 2)) == 12


def test_targets_are_taken_from_the_whole_range(pixels):
    y = np.where(np.arange(N) < 55, 0.0, np.arange(N))
    rows = rows_taken(pixels, y, FineTuneRegressor, n_samples=6)
    assert len(np.unique(rows)) == 6
    assert y[rows].min() == 0
    assert y[rows].max() == 59


def test_few_images_are_all_taken(pixels):
    check = check_can_learn(small(), pixels[:7], LABELS[:7], n_samples=100)
    assert check.n_samples == 7


def test_every_kind_of_input(pixels, tmp_path):
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(N)]
    expected = check_can_learn(small(), pixels, LABELS, max_epochs=3)
    found = check_can_learn(small(), paths, list(LABELS), max_epochs=3)
    assert_array_equal(found.losses, expected.losses)


def test_broken_images(pixels):
    X = [*pixels[:9], b"not an image"]
    y = LABELS[:10]
    with pytest.raises(BadImageError, match="index 9"):
        check_can_learn(small(), X, y)
    with pytest.warns(UserWarning, match="could not be read|BadImage|row"):
        assert check_can_learn(small(on_error="nan"), X, y).can_learn


# What cannot


def failed(est, X, y, **options):
    check = check_can_learn(est, X, y, **options)
    assert isinstance(check, LearningCheck)
    assert check.can_learn is False
    assert check.message.startswith("The set-up cannot learn: ")
    return check


def test_a_rate_that_is_too_small(pixels):
    check = failed(small(learning_rate=1e-8), pixels, LABELS)
    assert "'learning_rate' (now 1e-08) is too small" in check.message
    assert check.losses[-1] > 0.9 * check.losses[0]


def test_a_rate_that_is_too_large(pixels):
    rate = "'learning_rate' (now 10000)"
    shuffled = np.random.default_rng(0).permutation(LABELS)
    check = failed(small(learning_rate=1e4), pixels, shuffled)
    assert f"The loss rose instead of falling: the {rate} is too large" in check.message
    # Labels so plain that even this can learn them.
    check = check_can_learn(small(learning_rate=1e4), pixels, LABELS)
    assert check.can_learn
    assert f"a smaller {rate} may be better" in check.message


def test_a_rate_at_which_the_loss_is_no_number(pixels):
    est = small(learning_rate=1e36, optimizer="sgd", max_grad_norm=None)
    check = failed(est, pixels, LABELS)
    assert "The loss was NaN or infinite" in check.message
    assert "is too large" in check.message
    assert check.n_epochs < 60


def test_labels_that_contradict(pixels):
    X = pixels.copy()
    X[41] = X[3]
    y = np.arange(N)
    y = np.where(np.isin(np.arange(N), [3, 41]), y, 0)
    check = failed(small(), X, y, n_samples=N)
    assert "contradict each other: the images of rows" in check.message
    assert "rows 3 and 41" in check.message or "rows 41 and 3" in check.message


@pytest.mark.parametrize("n_targets", [1, 2])
def test_targets_that_are_all_equal(pixels, n_targets):
    y = np.full(N, 7.0)
    if n_targets == 2:
        y = np.column_stack([np.arange(N), y])
    check = failed(small(FineTuneRegressor), pixels, y)
    assert "there is nothing to learn" in check.message
    assert n_targets == 1 or "column(s) [1]" in check.message
    assert np.isnan(check.score)
    assert check.n_epochs == 0 == len(check.losses)


def test_one_class_is_an_error_as_in_fit(pixels):
    with pytest.raises(ValueError, match="at least 2 classes"):
        check_can_learn(small(), pixels, ["one"] * N)


def test_refuses_bad_arguments(pixels):
    with pytest.raises(ValueError, match="'n_samples' .* Got 1 instead"):
        check_can_learn(small(), pixels, LABELS, n_samples=1)
    with pytest.raises(TypeError, match="Got Pipeline instead"):
        check_can_learn(make_pipeline(small()), pixels, LABELS)


# Real images through the embedded network


@pytest.mark.slow
def test_the_embedded_network_learns_photographs_by_heart():
    names = "astronaut brick camera cell chelsea coffee coins grass gravel horse"
    names += " hubble_deep_field logo moon page retina rocket text color"
    names += " motorcycle_left motorcycle_right"
    folder = f"{skimage.__path__[0]}/data"
    ending = dict.fromkeys(["hubble_deep_field", "retina", "rocket"], "jpg")
    paths = [f"{folder}/{name}.{ending.get(name, 'png')}" for name in names.split()]
    # Any labels will do, as nothing is to be understood.
    labels = np.arange(20) % 4
    est = FineTuneClassifier(image_size=32, random_state=0)
    check = check_can_learn(est, paths, labels)
    assert check.can_learn, check.message
    assert check.score == 1.0
