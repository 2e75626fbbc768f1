"""Tests of SelfSupervisedExtractor."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FineTuneClassifier,
    PretrainedFeatureExtractor,
    SelfSupervisedExtractor,
)
from skdeepfeat.self_supervised._probe import Probe
from skdeepfeat.training import PAIR_LOSSES

pytestmark = [
    pytest.mark.filterwarnings("ignore:The embeddings have begun to collapse"),
    pytest.mark.filterwarnings("ignore:The training made"),
]


class Tiny(nn.Module):
    """Two convolutions and a head."""

    def __init__(self, width=8):
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU()
        )
        self.fc = nn.Linear(width, 2)

    def forward(self, images):
        return self.fc(self.second(self.first(images)).mean((2, 3)))


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny().eval()


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (24, 1, 1, 3))
    return np.clip(colors + rng.normal(scale=20, size=(24, 20, 20, 3)), 0, 255).astype(
        np.uint8
    )


def extractor(network, **params):
    settings = dict(
        image_size=16, max_epochs=2, batch_size=8, projection=(16, 8), unfreeze="all",
        learning_rate=1e-2, ema_decay=0.5, cache=None, device="cpu", random_state=0,
    )  # fmt: skip
    return SelfSupervisedExtractor(network, **{**settings, **params})


@pytest.mark.parametrize("method", PAIR_LOSSES)
def test_each_method_trains_the_body_and_not_the_users_module(method, network, X):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    fitted = extractor(network, method=method).fit(X)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    changed = fitted.body_.state_dict()
    assert not torch.equal(changed["first.0.weight"], before["first.0.weight"])
    assert torch.equal(changed["fc.weight"], before["fc.weight"])
    history = fitted.history_
    assert len(history) == fitted.n_epochs_ == 2
    columns = ["train_loss", "alignment", "uniformity", "effective_rank", "spread"]
    assert np.isfinite(history[columns]).all(axis=None)
    assert fitted.transform(X).shape == (24, 8)
    assert len(fitted.get_feature_names_out()) == 8


@pytest.mark.slow
def test_vicreg_brings_views_together_and_spreads_images(network, X):
    fitted = extractor(network, max_epochs=25).fit(X)
    first, last = fitted.history_.iloc[0], fitted.history_.iloc[-1]
    assert last["train_loss"] < first["train_loss"]
    assert last["spread"] > first["spread"]


def test_the_body_goes_on_in_other_estimators(network, X):
    fitted = extractor(network).fit(X)
    settings = dict(preprocessing=fitted.preprocessing_, cache=None, device="cpu")
    features = PretrainedFeatureExtractor(fitted.body_, **settings).fit_transform(X)
    np.testing.assert_array_equal(features, fitted.transform(X))
    clf = FineTuneClassifier(fitted.body_, max_epochs=1, batch_size=8, **settings)
    assert clf.fit(X, [0, 1] * 12).predict(X).shape == (24,)


def test_two_fits_with_one_seed_are_equal_and_pickles_too(network, X):
    fitted = extractor(network).fit(X)
    again = clone(fitted).fit(X)
    np.testing.assert_array_equal(fitted.transform(X), again.transform(X))
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(fitted.transform(X), copy.transform(X))


def test_a_resumed_fit_without_a_seed_has_that_of_the_checkpoint(network, X, tmp_path):
    settings = dict(random_state=None, checkpoint=tmp_path / "checkpoint")
    first = extractor(network, **settings).fit(X)
    again = extractor(network, **settings).fit(X)
    np.testing.assert_array_equal(first.transform(X), again.transform(X))


def test_flat_rows_have_feature_names(network, X):
    rows = X[:8].reshape(8, -1)
    fitted = extractor(network, flat_image_shape=(20, 20, 3), max_epochs=1).fit(rows)
    assert len(fitted.get_feature_names_out()) == fitted.transform(rows).shape[1] == 8


def test_a_wrong_stage_is_found_before_an_image_is_read(network):
    with pytest.raises(ValueError, match="unfreeze"):
        extractor(network, unfreeze="layer9").fit(["missing.png"] * 8)


def test_it_works_in_a_pipeline(network, X):
    y = np.arange(24) % 2
    pipeline = make_pipeline(extractor(network), LogisticRegression())
    assert pipeline.fit(X, y).predict(X).shape == (24,)


class InterruptedOnce:
    """A transform during whose n-th call the user presses Ctrl-C."""

    def __init__(self, n):
        self.n_left = n

    def __call__(self, images):
        self.n_left -= 1
        if self.n_left == 0:
            raise KeyboardInterrupt
        return images

    def __repr__(self):
        return "InterruptedOnce"  # the checkpoint compares it


def test_an_interrupted_fit_resumes_from_its_checkpoint(network, X, tmp_path):
    path = tmp_path / "checkpoint"
    settings = dict(max_epochs=3, method="simclr")
    whole = extractor(network, augment=InterruptedOnce(-1), **settings).fit(X)
    # An epoch has three steps of two calls each, and is measured by as many.
    first = extractor(network, augment=InterruptedOnce(15), checkpoint=path, **settings)
    with pytest.warns(RuntimeWarning, match="interrupted after 1 of 3"):
        first.fit(X)
    assert first.n_epochs_ == 1 and first.transform(X).shape == (24, 8)
    first.augment = InterruptedOnce(-1)
    resumed = first.fit(X)
    assert resumed.n_epochs_ == 3
    np.testing.assert_array_equal(resumed.transform(X), whole.transform(X))


def test_a_fit_that_is_interrupted_at_once_has_an_empty_history(network, X):
    first = extractor(network, augment=InterruptedOnce(1))
    with pytest.warns(RuntimeWarning, match="interrupted after 0 of 2"):
        first.fit(X)
    assert len(first.history_) == first.n_epochs_ == 0
    whole = extractor(network, max_epochs=1).fit(X)
    assert list(first.history_) == list(whole.history_)


def test_groups_pair_different_images(network, X):
    seen = []

    class Recorder:
        def __call__(self, images):
            seen.append(images)
            return images

    groups = np.arange(24) // 2
    extractor(network, augment=Recorder(), max_epochs=1).fit(X, groups=groups)
    del seen[6:]  # three steps; the rest measures the embeddings
    # Calls alternate between first and second views.
    means = X.reshape(24, -1, 3).mean(axis=1)

    def index(image):
        mean = image.reshape(3, -1).float().mean(1).numpy()
        return np.abs(means - mean).sum(axis=1).argmin()

    pairs = [
        (index(a), index(b))
        for first, second in zip(seen[::2], seen[1::2], strict=True)
        for a, b in zip(first, second, strict=True)
    ]
    assert len(pairs) == 24
    assert all(i != j and i // 2 == j // 2 for i, j in pairs)


@pytest.mark.filterwarnings("default:The training made")
def test_a_probe_says_whether_it_helped_and_the_better_one_is_kept(
    network, X, monkeypatch
):
    # Which training does harm depends on its seed, so the scores are given.
    y = np.arange(24) % 2
    scores = iter([0.9, 0.5, 0.9, 0.5])
    monkeypatch.setattr(Probe, "score", lambda probe, extractor: next(scores))
    harmful = extractor(network)
    with pytest.warns(RuntimeWarning, match="made the features worse"):
        fitted = harmful.fit(X, X_probe=X, y_probe=y)
    assert fitted.kept_original_
    assert fitted.probe_score_after_ < fitted.probe_score_before_
    original = PretrainedFeatureExtractor(
        network, image_size=16, cache=None, device="cpu"
    ).fit_transform(X)
    np.testing.assert_allclose(fitted.transform(X), original, rtol=1e-5, atol=1e-6)
    with pytest.warns(RuntimeWarning, match="trained network is used"):
        worse = clone(harmful).set_params(keep_best=False).fit(X, X_probe=X, y_probe=y)
    assert not worse.kept_original_
    assert not np.allclose(worse.transform(X), original)


def test_broken_images_are_left_out(network, X):
    images = [*X, b"no image"]
    with pytest.warns(BadImageWarning, match="they are left out"):
        fitted = extractor(network, on_error="nan").fit(images)
    with pytest.warns(BadImageWarning, match="rows are NaN"):
        features = fitted.transform(images)
    assert np.isnan(features[-1]).all() and np.isfinite(features[:-1]).all()


class Constant(Tiny):
    """Features that do not depend on the image."""

    def forward(self, images):
        features = self.second(self.first(images)).mean((2, 3))
        return self.fc(features * 0 + self.fc.weight[0])


@pytest.mark.filterwarnings("default:The embeddings have begun to collapse")
def test_a_constant_encoder_is_reported():
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    with pytest.warns(RuntimeWarning, match="collapse"):
        fitted = extractor(Constant().eval(), method="align_uniform").fit(images)
    assert fitted.history_["spread"].iloc[-1] < 1e-3


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"method": "moco"}, "method"),
        ({"projection": (16, 1)}, "projection"),
        ({"projection": ()}, "projection"),
        ({"batch_size": 1}, "batch_size"),
        ({"unfreeze": "layer9"}, "unfreeze"),
        ({"augment": "flip"}, "augment"),
    ],
)
def test_a_bad_parameter_is_named(params, match, network, X):
    with pytest.raises(ValueError, match=match):
        extractor(network, **params).fit(X)


def test_data_that_cannot_be_learned_from_are_refused(network, X):
    with pytest.raises(ValueError, match="at least 4 images"):
        extractor(network).fit(X[:3])
    with pytest.raises(ValueError, match="same"):
        extractor(network).fit(np.repeat(X[:1], 6, axis=0))
    with pytest.raises(ValueError, match="group.* 5 has one"):
        extractor(network).fit(X[:5], groups=[0, 0, 1, 1, 5])
    with pytest.raises(ValueError, match="groups"):
        extractor(network).fit(X, groups=[0, 0])
    with pytest.raises(ValueError, match="missing values. Got one at index 3"):
        extractor(network).fit(X[:4], groups=["a", "a", "b", None])
    with pytest.raises(ValueError, match="missing values. Got one at index 2"):
        extractor(network).fit(X[:4], groups=["a", "a", np.nan, np.nan])
    with pytest.raises(ValueError, match="groups must be one-dimensional"):
        extractor(network).fit(X, groups=np.zeros((24, 2)))
    with pytest.raises(ValueError, match="at least 2 groups"):
        extractor(network).fit(X, groups=["a"] * 24)
    broken = [*X[:4], b"no image"]
    with (
        pytest.raises(ValueError, match="that can be read in each group. Group 'b'"),
        pytest.warns(BadImageWarning),
    ):
        extractor(network, on_error="nan").fit(broken, groups=["a"] * 3 + ["b"] * 2)
    with pytest.raises(ValueError, match="at least 4 images"):
        extractor(network).fit(broken[:3])
    with (
        pytest.raises(ValueError, match="at least 4 images that can be read. Got 3"),
        pytest.warns(BadImageWarning),
    ):
        extractor(network, on_error="nan").fit([*X[:3], b"no image"])
    rows = np.where(np.arange(24) == 5, np.nan, X.reshape(24, -1).T).T
    with pytest.raises(ValueError, match="X contains NaN"):
        extractor(network, flat_image_shape=(20, 20, 3)).fit(rows)


@pytest.mark.parametrize(
    ("X_probe", "y_probe", "match"),
    [
        (True, None, "X_probe and y_probe"),
        (True, np.zeros(24), "y_probe .* 2 classes"),
        (True, np.arange(24) % 23, "2 images each"),
        (True, np.zeros(3), "y_probe .* 24 rows, y_probe 3 entries"),
        (True, [None, 1] * 12, "y_probe .* missing values. Got one at index 0"),
        (True, ["a", np.nan] * 12, "y_probe .* missing values. Got one at index 1"),
        (True, np.full(24, np.nan), "y_probe .* missing"),
        (True, np.zeros((24, 2)), "y_probe .* one-dimensional"),
        (False, [0, 1, 0, 1], "4 entries"),
    ],
)
def test_a_bad_probe_is_refused(X_probe, y_probe, match, network, X):
    X_probe = X if X_probe else X[:3]
    with pytest.raises(ValueError, match=match):
        extractor(network).fit(X, X_probe=X_probe, y_probe=y_probe)


def test_a_probe_that_cannot_be_read_any_more_is_refused(network, X):
    X_probe = [X[0], X[1], X[2], b"no image"]
    with (
        pytest.raises(ValueError, match="that can be read.* Got 3 entries"),
        pytest.warns(BadImageWarning),
    ):
        extractor(network, on_error="nan").fit(X, X_probe=X_probe, y_probe=[0, 0, 1, 1])
    with pytest.raises(BadImageError, match="^X_probe, index 3, "):
        extractor(network).fit(X, X_probe=X_probe, y_probe=[0, 0, 1, 1])


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_a_probe_if_scikit_learn_returns_frames(container, network, X):
    probe = Probe(X, np.arange(24) % 2)
    features = PretrainedFeatureExtractor(network, image_size=16, cache=None)
    expected = probe.score(features)
    with config_context(transform_output=container):
        assert probe.score(features) == expected


@pytest.mark.slow
def test_the_probe_may_have_another_form_than_the_images(network, X, tmp_path):
    y = np.arange(24) % 2
    paths = []
    for i, image in enumerate(X):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).save(paths[-1])
    rows = X.reshape(24, -1)
    flat = {"flat_image_shape": (20, 20, 3)}
    cases = [
        ({}, X, X),
        ({}, pd.DataFrame({"photograph": paths}), X),
        ({}, X, pd.DataFrame({"path": paths})),
        ({}, paths, [Image.fromarray(image) for image in X]),
        (flat, rows, rows),
        (flat, rows, X),
        (flat, rows, paths),
        (flat, pd.DataFrame(rows), pd.DataFrame({"path": paths})),
    ]
    scores = [
        extractor(network, max_epochs=1, keep_best=False, **params)
        .fit(images, X_probe=X_probe, y_probe=y)
        .probe_score_before_
        for params, images, X_probe in cases
    ]
    assert scores == scores[:1] * len(cases)
