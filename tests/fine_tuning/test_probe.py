"""`X_probe`: predictions for the same images after each epoch."""

import copy
import pickle

import numpy as np
import pytest
import sklearn
import torch
from networks import SmallNet
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV, cross_validate

from skdeepfeat import (
    BadFileError,
    BadImageWarning,
    FineTuneClassifier,
    FineTuneRegressor,
    NonFiniteOutputError,
    TrainingDivergedError,
)

N = 24
SIZE = 16
N_PROBES = 5


def small(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": SmallNet(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "max_epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.01,
        "random_state": 0,
        "cache": None,
        "device": "cpu",
    }
    return kind(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (N, SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def probes():
    shape = (N_PROBES, SIZE, SIZE, 3)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


TARGETS = {
    "classes": (FineTuneClassifier, {}, np.arange(N) % 3, "predict_proba"),
    "two classes": (FineTuneClassifier, {}, np.arange(N) % 2, "predict_proba"),
    "several labels": (
        FineTuneClassifier, {}, np.arange(N)[:, None] // [1, 2] % 2, "predict_proba",
    ),
    "scores": (
        FineTuneClassifier, {"loss": "hinge"}, np.arange(N) % 3, "decision_function",
    ),
    "target": (FineTuneRegressor, {}, 1000 + np.arange(N) * 7.0, "predict"),
    "targets": (
        FineTuneRegressor, {}, np.arange(2 * N).reshape(N, 2) * 1.0, "predict",
    ),
    "hidden layers": (
        FineTuneClassifier, {"hidden_layer_sizes": (4,), "head_epochs": 2},
        np.arange(N) % 3, "predict_proba",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_the_last_epoch_is_what_the_estimator_predicts(name, pixels, probes):
    kind, parameters, y, method = TARGETS[name]
    fitted = small(kind, **parameters).fit(pixels, y, X_probe=probes)
    found = fitted.probe_predictions_
    wanted = getattr(fitted, method)(probes).reshape(N_PROBES, -1)
    assert found.dtype == np.float32
    assert found.shape == (len(fitted.history_), N_PROBES, wanted.shape[1])
    assert_allclose(found[-1], wanted, rtol=1e-4, atol=1e-5)
    # Those of phase one are those of the head alone.
    frozen = small(kind, **parameters, unfreeze=None).fit(pixels, y, X_probe=probes)
    n_head = len(frozen.history_)
    assert_array_equal(frozen.probe_predictions_, found[:n_head])
    wanted = getattr(frozen, method)(probes).reshape(N_PROBES, -1)
    assert_allclose(frozen.probe_predictions_[-1], wanted, rtol=1e-4, atol=1e-5)
    assert np.ptp(found, axis=0).min() > 0


def test_a_probe_changes_nothing(pixels, probes):
    y = np.arange(N) % 3
    without = small(early_stopping=True).fit(pixels, y)
    fitted = small(early_stopping=True).fit(pixels, y, X_probe=probes)
    assert without.probe_predictions_ is None
    assert_array_equal(fitted.predict_proba(pixels), without.predict_proba(pixels))
    one, other = (e.history_.drop(columns="seconds") for e in (fitted, without))
    assert one.equals(other)


def test_every_epoch_is_recorded_and_the_best_is_kept(pixels, probes):
    scores = iter([0, 0.5, 0.9, 0.1, 0.2])

    def scoring(estimator, X, y):
        return next(scores)

    fitted = small(
        early_stopping=True, n_iter_no_change=2, max_epochs=9, scoring=scoring
    ).fit(pixels, np.arange(N) % 3, X_probe=probes)
    assert fitted.best_epoch_ == 2
    assert len(fitted.probe_predictions_) == len(fitted.history_) == 5
    best = fitted.probe_predictions_[fitted.best_epoch_]  # epoch 0 is phase one
    assert_allclose(best, fitted.predict_proba(probes), rtol=1e-4, atol=1e-5)


def test_continued_fits(pixels, probes):
    y = np.arange(N) % 3
    estimator = small(warm_start=True, max_epochs=2)
    first = estimator.fit(pixels, y, X_probe=probes).probe_predictions_
    second = estimator.fit(pixels, y, X_probe=probes).probe_predictions_
    assert first.shape[0] == 3 and second.shape[0] == 5 == len(estimator.history_)
    assert_array_equal(second[:3], first)
    # Another number of images begins anew.
    third = estimator.fit(pixels, y, X_probe=probes[:2]).probe_predictions_
    assert third.shape == (2, 2, 3)
    assert estimator.fit(pixels, y).probe_predictions_ is None
    assert estimator.partial_fit(pixels, y).probe_predictions_ is None


def test_resumed_from_a_checkpoint(pixels, probes, tmp_path):
    y = np.arange(N) % 3
    n_left = 100

    def scoring(estimator, X, y):
        nonlocal n_left
        n_left -= 1
        if n_left == 0:
            raise InterruptedError
        return 0.0

    def fit(checkpoint, X_probe=probes):
        estimator = small(scoring=scoring, checkpoint=checkpoint)
        return estimator.fit(pixels, y, X_val=pixels, y_val=y, X_probe=X_probe)

    expected = fit(None).probe_predictions_
    n_left = 3  # phase one and two epochs
    with pytest.raises(InterruptedError):
        fit(tmp_path / "run.safetensors")
    resumed = fit(tmp_path / "run.safetensors")
    assert_array_equal(resumed.probe_predictions_, expected)
    for other in (None, probes[::-1]):
        with pytest.raises(ValueError, match="other values of X_probe"):
            fit(tmp_path / "run.safetensors", other)


def test_the_epoch_that_diverged_is_left_out(pixels, probes):
    estimator = small(
        learning_rate=1e30, max_grad_norm=None, optimizer="sgd", schedule="constant"
    )
    with pytest.raises(TrainingDivergedError):
        estimator.fit(pixels, np.arange(N) % 3, X_probe=probes)
    assert len(estimator.probe_predictions_) == len(estimator.history_)
    assert np.isfinite(estimator.probe_predictions_).all()


def test_images_that_cannot_be_read(pixels, probes, tmp_path):
    X_probe = [*probes[:2], tmp_path / "nowhere.png", *probes[3:]]
    y = np.arange(N) % 3
    with pytest.warns(BadImageWarning):
        fitted = small(on_error="nan").fit(pixels, y, X_probe=X_probe)
    found = fitted.probe_predictions_
    assert np.isnan(found[:, 2]).all()
    whole = small().fit(pixels, y, X_probe=probes).probe_predictions_
    others = [0, 1, 3, 4]
    assert_allclose(found[:, others], whole[:, others], rtol=1e-5)
    with pytest.raises(ValueError, match="nowhere.png"):
        small().fit(pixels, y, X_probe=X_probe)


def test_a_network_that_returns_nan_for_a_probe(pixels, probes):
    from networks import OddNet

    X_probe = probes.copy()
    X_probe[1] = 255
    with pytest.raises(NonFiniteOutputError, match="1 image.* of X_probe"):
        small(model=OddNet()).fit(pixels, np.arange(N) % 3, X_probe=X_probe)


def test_saved_pickled_and_copied(pixels, probes, tmp_path):
    fitted = small().fit(pixels, np.arange(N) % 3, X_probe=probes)
    fitted.save(tmp_path / "c.safetensors")
    for again in (
        FineTuneClassifier.load(tmp_path / "c.safetensors", model=SmallNet()),
        pickle.loads(pickle.dumps(fitted)),
        copy.deepcopy(fitted),
    ):
        assert_array_equal(again.probe_predictions_, fitted.probe_predictions_)
        assert again.probe_predictions_.dtype == np.float32


@pytest.mark.parametrize(
    "forged",
    [np.zeros((4, 2), np.float32), np.zeros((5, 2, 3), np.float32),
     np.zeros((4, 2, 4), np.float32), np.zeros((4, 2, 3))],
)  # fmt: skip
def test_a_file_holds_only_what_a_fit_records(forged, pixels, probes, tmp_path):
    fitted = small().fit(pixels, np.arange(N) % 3, X_probe=probes)
    fitted.probe_predictions_ = forged
    fitted.save(tmp_path / "c.safetensors")
    with pytest.raises(BadFileError, match="probe_predictions_"):
        FineTuneClassifier.load(tmp_path / "c.safetensors", model=SmallNet())


def test_searches_pass_the_probe_on(pixels, probes):
    y = np.arange(N) % 3
    search = GridSearchCV(small(max_epochs=1), {"unfreeze": [None, 1]}, cv=2)
    search.fit(pixels, y, X_probe=probes)
    found = search.best_estimator_.probe_predictions_
    assert found.shape[1:] == (N_PROBES, 3)


def test_scikit_learn_slices_a_probe_that_is_as_long_as_X(pixels, probes):
    y = np.arange(N) % 3
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = small(max_epochs=1).set_fit_request(X_probe=True)
        for X_probe, n_images in [(probes, N_PROBES), (pixels, N // 2)]:
            found = cross_validate(
                estimator, pixels, y, cv=2, params={"X_probe": X_probe},
                return_estimator=True,
            )  # fmt: skip
            for one in found["estimator"]:
                assert one.probe_predictions_.shape == (2, n_images, 3)
        with pytest.raises(ValueError, match="X_probe"):
            cross_validate(small(), pixels, y, cv=2, params={"X_probe": probes})


class Noting(SmallNet):
    """Notes in which mode and precision it runs."""

    seen: list = []

    def forward(self, x):
        self.seen.append((self.training, torch.is_autocast_enabled("cpu")))
        return super().forward(x)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_in_the_precision_of_the_training_and_of_predictions(
    precision, pixels, probes, monkeypatch
):
    monkeypatch.setattr(Noting, "seen", seen := [])
    classifier = small(model=Noting(), precision=precision, early_stopping=True)
    classifier.fit(pixels, np.arange(N) % 3, X_probe=probes)
    in_bfloat16 = precision == "bfloat16"
    # As `X_probe` and the validation set are in evaluation mode, after training began.
    later = seen[seen.index((True, in_bfloat16)) :]
    assert set(later) == {(True, in_bfloat16), (False, in_bfloat16)}
