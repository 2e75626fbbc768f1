"""Tests of Autoencoder."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from scipy.linalg import subspace_angles
from sklearn.base import clone
from sklearn.datasets import load_digits, make_low_rank_matrix
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skdeepfeat import Autoencoder, TrainingDivergedError


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def low_rank(n=300, n_features=20, rank=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, rank)) @ rng.normal(size=(rank, n_features))


@parametrize_with_checks(
    [
        Autoencoder((4,), max_epochs=2, device="cpu"),
        Autoencoder(
            (8, 2), max_epochs=1, corruption="mask", layerwise=True, device="cpu"
        ),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("tied_weights", [False, True])
def test_a_linear_autoencoder_is_pca(tied_weights):
    X = 50 * make_low_rank_matrix(500, 30, effective_rank=5, random_state=1) + 7
    autoencoder = Autoencoder(
        (3,), activation="identity", tied_weights=tied_weights, learning_rate=1e-2,
        max_epochs=500, batch_size=100, random_state=0,
    ).fit(X)  # fmt: skip
    pca = PCA(3).fit(X)
    axes = autoencoder.inverse_transform(np.eye(3))
    axes = axes - autoencoder.inverse_transform(np.zeros((1, 3)))
    assert subspace_angles(axes.T, pca.components_.T).max() < 1e-2
    error = ((pca.inverse_transform(pca.transform(X)) - X) ** 2).mean()
    assert autoencoder.reconstruction_error(X).mean() == pytest.approx(error, rel=0.01)


def test_codes_restore_rows_up_to_the_reported_error(digits):
    X = digits[0][:400]
    autoencoder = Autoencoder((64, 16), max_epochs=20, random_state=0).fit(X)
    codes = autoencoder.transform(X)
    assert codes.shape == (400, 16) and codes.dtype == np.float32
    restored = autoencoder.inverse_transform(codes)
    errors = autoencoder.reconstruction_error(X)
    np.testing.assert_allclose(((restored - X) ** 2).mean(axis=1), errors, rtol=1e-4)
    assert errors.mean() < 0.25 * X.var(axis=0).mean()


@pytest.mark.parametrize(
    ("corruption", "level", "damage"),
    [
        (
            "gaussian",
            0.5,
            lambda X, rng: X + rng.normal(scale=X.std() / 2, size=X.shape),
        ),
        ("mask", 0.3, lambda X, rng: np.where(rng.random(X.shape) < 0.3, 0, X)),
    ],
)
def test_denoising_restores_damaged_rows(corruption, level, damage):
    clean = low_rank(n=600, rank=3)
    damaged = damage(clean, np.random.default_rng(0))

    def clean_error(rows, corruption):
        autoencoder = Autoencoder(
            (64, 32), corruption=corruption, corruption_level=level,
            learning_rate=3e-3, max_epochs=20, random_state=0,
        ).fit(rows[:400])  # fmt: skip
        restored = autoencoder.inverse_transform(autoencoder.transform(damaged[400:]))
        return ((restored - clean[400:]) ** 2).mean()

    assert clean_error(clean, corruption) < 0.7 * clean_error(clean, None)
    # Noise that is in the data already is removed as well.
    if corruption == "gaussian":
        assert clean_error(damaged, corruption) < 0.9 * clean_error(damaged, None)


def test_layers_are_trained_one_after_the_other(digits):
    X = digits[0][:300]
    autoencoder = Autoencoder(
        (32, 16, 8), layerwise=True, corruption="salt_pepper", max_epochs=3,
        random_state=0,
    ).fit(X)  # fmt: skip
    phases = ["layer 1"] * 3 + ["layer 2"] * 3 + ["layer 3"] * 3 + ["network"] * 3
    assert autoencoder.history_["phase"].tolist() == phases
    assert autoencoder.history_["epoch"].tolist() == list(range(1, 13))
    alone = Autoencoder((32, 16, 8), max_epochs=3, random_state=0).fit(X)
    assert (
        autoencoder.history_["train_loss"][9] < alone.history_["train_loss"][0]
    )  # it starts from trained layers


def test_early_stopping_restores_the_best_epoch(digits):
    X = digits[0][:200]
    autoencoder = Autoencoder(
        (128, 64), early_stopping=True, n_iter_no_change=3, max_epochs=300,
        learning_rate=2e-2, random_state=0,
    ).fit(X)  # fmt: skip
    history = autoencoder.history_
    assert len(history) < 300
    assert autoencoder.best_epoch_ == history["validation_loss"].idxmin() + 1
    assert len(history) == autoencoder.best_epoch_ + 3


def test_partial_fit_learns_from_batches(digits):
    X = digits[0]
    autoencoder = Autoencoder((32, 8), random_state=0)
    autoencoder.partial_fit(X[:600])
    first = autoencoder.reconstruction_error(X).mean()
    copy = pickle.loads(pickle.dumps(autoencoder))
    for model in (autoencoder, copy):
        for start in (600, 1200, 0, 600):
            model.partial_fit(X[start : start + 600])
    assert autoencoder.reconstruction_error(X).mean() < 0.7 * first
    assert autoencoder.history_["epoch"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(autoencoder.transform(X), copy.transform(X))


def test_the_cross_entropy_restores_values_between_0_and_1(digits):
    X = digits[0][:300] / 16
    autoencoder = Autoencoder((16,), loss="cross_entropy", max_epochs=10).fit(X)
    restored = autoencoder.inverse_transform(autoencoder.transform(X))
    assert 0 <= restored.min() and restored.max() <= 1
    with pytest.raises(ValueError, match=r"\[0, 1\].*MinMaxScaler"):
        Autoencoder(loss="cross_entropy").fit(X * 16)


def test_the_same_seed_gives_the_same_codes_whatever_the_scale(digits):
    X = digits[0][:200]
    autoencoder = Autoencoder((8,), max_epochs=3, corruption="mask", random_state=3)
    codes = autoencoder.fit_transform(X)
    np.testing.assert_array_equal(codes, clone(autoencoder).fit_transform(X))
    scaled = clone(autoencoder).fit_transform(X * 1024)
    np.testing.assert_allclose(codes, scaled, rtol=1e-4, atol=1e-4)


def test_a_large_offset_costs_no_precision():
    X = low_rank()
    settings = dict(activation="identity", max_epochs=30, random_state=0)
    near = Autoencoder((4,), **settings).fit(X)
    far = Autoencoder((4,), **settings).fit(X + 1e6)
    assert far.reconstruction_error(X + 1e6).mean() == pytest.approx(
        near.reconstruction_error(X).mean(), abs=1e-3
    )


def test_changes_after_the_fit(digits):
    X = digits[0][:60] / 16
    fitted = Autoencoder((4,), max_epochs=1, corruption="mask", random_state=0).fit(X)
    errors = fitted.reconstruction_error(X)
    # Rows are restored as they were learned.
    fitted.set_params(loss="cross_entropy")
    np.testing.assert_array_equal(fitted.reconstruction_error(X), errors)
    with pytest.raises(ValueError, match="'loss' parameter"):
        fitted.partial_fit(X)
    fitted.set_params(loss="huber", corruption_level=2)
    with pytest.raises(ValueError, match="'corruption_level' parameter"):
        fitted.partial_fit(X)


def test_it_works_in_a_pipeline(digits):
    X, y = digits[0][:500], digits[1][:500]
    pipeline = make_pipeline(
        Autoencoder((64, 16), max_epochs=15, random_state=0),
        LogisticRegression(max_iter=1000),
    )
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.8
    names = pipeline[0].set_output(transform="pandas").fit_transform(X).columns
    assert list(names[:2]) == ["autoencoder0", "autoencoder1"]


def test_unusual_rows_have_a_large_error(digits):
    X = digits[0]
    autoencoder = Autoencoder((64, 16), max_epochs=20, random_state=0).fit(X[:900])
    noise = np.random.default_rng(0).permuted(X[900:1000], axis=1)
    usual = autoencoder.reconstruction_error(X[900:])
    assert np.median(autoencoder.reconstruction_error(noise)) > np.quantile(usual, 0.9)


def test_constant_rows_are_restored():
    X = np.full((10, 3), 5.0)
    autoencoder = Autoencoder((2,), max_epochs=3, random_state=0).fit(X)
    assert autoencoder.reconstruction_error(X).max() < 1


def test_divergence_keeps_finite_weights(digits):
    autoencoder = Autoencoder((8,), learning_rate=1e30, max_epochs=5)
    with pytest.raises(TrainingDivergedError, match="learning_rate"):
        autoencoder.fit(digits[0][:100])
    assert np.isfinite(autoencoder.transform(digits[0][:5])).all()


def test_training_goes_on_after_it_diverged_in_a_layer(digits):
    X = digits[0][:100]
    autoencoder = Autoencoder((8, 4), layerwise=True, learning_rate=1e30, max_epochs=5)
    with pytest.raises(TrainingDivergedError):
        autoencoder.fit(X)
    autoencoder.set_params(learning_rate=1e-3).partial_fit(X)
    assert np.isfinite(autoencoder.transform(X)).all()


def test_rows_beyond_the_training_range_have_codes(digits):
    X = digits[0][:50] / 16
    autoencoder = Autoencoder((4,), loss="cross_entropy", max_epochs=1).fit(X)
    assert autoencoder.transform(2 * X).shape == (50, 4)


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"hidden_layer_sizes": ()}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": (8, 0)}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": (8, 2.5)}, "hidden_layer_sizes"),
        ({"corruption": "mask", "corruption_level": 1.5}, "corruption_level"),
        ({"corruption": "blur"}, "corruption"),
        ({"activation": "selu"}, "activation"),
        ({"early_stopping": True, "validation_fraction": 0.999}, "validation_fraction"),
        ({"device": "tpu9"}, "device"),
    ],
)
def test_a_bad_parameter_is_named(parameters, match, digits):
    with pytest.raises(ValueError, match=match):
        Autoencoder(**parameters).fit(digits[0][:20])


def test_codes_in_a_frame_are_restored_without_a_warning(digits):
    # The values of a frame are read-only, of which torch warns once per process.
    autoencoder = Autoencoder((4,), max_epochs=1).fit(digits[0][:50])
    codes = autoencoder.transform(digits[0])
    expected = autoencoder.inverse_transform(codes)
    codes.flags.writeable = False
    torch.set_warn_always(True)
    try:
        restored = autoencoder.inverse_transform(pd.DataFrame(codes, copy=False))
    finally:
        torch.set_warn_always(False)
    assert_array_equal(restored, expected)


def test_bad_rows_are_refused(digits):
    X = digits[0][:50]
    with pytest.raises(ValueError, match="NaN"):
        Autoencoder(max_epochs=1).fit(np.where(X == 16, np.nan, X))
    with pytest.raises(ValueError, match="1 sample"):
        Autoencoder(max_epochs=1).fit(X[:1])
    autoencoder = Autoencoder((4,), max_epochs=1).fit(X)
    with pytest.raises(ValueError, match="codes of 4 features"):
        autoencoder.inverse_transform(X)
