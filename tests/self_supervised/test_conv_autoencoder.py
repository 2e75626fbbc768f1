"""Tests of ConvAutoencoder and of the display of what it restores."""

import copy
import pickle

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.base import clone

from skdeepfeat import Autoencoder, BadImageWarning, ConvAutoencoder
from skdeepfeat.plotting import ReconstructionDisplay

matplotlib.use("agg")


@pytest.fixture(scope="module")
def X():
    """Two-colored squares: few numbers describe them."""
    rng = np.random.default_rng(0)
    images = np.empty((48, 16, 16, 3), np.uint8)
    images[:, :, :8] = rng.integers(0, 256, (48, 1, 1, 3))
    images[:, :, 8:] = rng.integers(0, 256, (48, 1, 1, 3))
    return images


@pytest.fixture(scope="module")
def fitted(X):
    return ConvAutoencoder(
        8, image_size=16, max_epochs=60, batch_size=16, learning_rate=5e-3,
        device="cpu", random_state=0,
    ).fit(X)  # fmt: skip


@pytest.mark.slow
def test_codes_of_few_numbers_restore_images(fitted, X):
    codes = fitted.transform(X)
    assert codes.shape == (48, 8) and codes.dtype == np.float32
    restored = fitted.inverse_transform(codes)
    assert restored.shape == X.shape and restored.dtype == np.uint8
    errors = fitted.reconstruction_error(X)
    differences = (restored / 255.0 - X / 255.0) ** 2
    np.testing.assert_allclose(differences.mean((1, 2, 3)), errors, atol=1e-3)
    assert errors.mean() < 0.15 * (X / 255.0).var(axis=0).mean()
    assert fitted.get_feature_names_out()[0] == "convautoencoder0"


def test_one_seed_gives_the_same_codes_and_pickles_do_too(X):
    autoencoder = ConvAutoencoder(4, image_size=16, max_epochs=1, random_state=1)
    codes = autoencoder.fit_transform(X)
    np.testing.assert_array_equal(clone(autoencoder).fit_transform(X), codes)
    copy = pickle.loads(pickle.dumps(autoencoder))
    np.testing.assert_array_equal(copy.transform(X), codes)


@pytest.mark.parametrize("corruption", ["mask", "gaussian", "salt_pepper"])
def test_it_learns_from_damaged_images(corruption, X):
    autoencoder = ConvAutoencoder(
        8, image_size=16, corruption=corruption, corruption_level=0.2, max_epochs=3,
        batch_size=16, random_state=0,
    ).fit(X)  # fmt: skip
    assert autoencoder.history_["train_loss"].is_monotonic_decreasing


@pytest.mark.parametrize("size", [4, 7, 32, (9, 20)])
def test_any_size_is_restored(size, X, tmp_path):
    paths = []
    for i, image in enumerate(X[:6]):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(image).resize((30, 40)).save(paths[-1])
    autoencoder = ConvAutoencoder(3, image_size=size, max_epochs=1, batch_size=3)
    codes = autoencoder.fit_transform(paths)
    height, width = (size, size) if isinstance(size, int) else size
    assert autoencoder.image_shape_ == (height, width, 3)
    assert autoencoder.inverse_transform(codes).shape == (6, height, width, 3)
    assert np.isfinite(autoencoder.reconstruction_error(paths)).all()


def test_a_pretrained_network_may_be_the_encoder(X):
    autoencoder = ConvAutoencoder(
        4, image_size=32, model="efficientnet_lite0", max_epochs=1, batch_size=8,
        early_stopping=True, validation_fraction=0.25, random_state=0,
    ).fit(X[:16])  # fmt: skip
    assert autoencoder.transform(X[:2]).shape == (2, 4)
    assert autoencoder.best_epoch_ == 1
    assert np.isfinite(autoencoder.history_["validation_loss"]).all()


def test_the_size_is_that_of_the_fit(fitted, X):
    changed = copy.deepcopy(fitted).set_params(image_size=24)
    np.testing.assert_array_equal(changed.transform(X), fitted.transform(X))
    np.testing.assert_array_equal(changed.resized(X), fitted.resized(X))


def test_broken_images_are_left_out(fitted, X):
    images = [*X[:4], b"no image"]
    autoencoder = clone(fitted).set_params(on_error="nan", max_epochs=1)
    with pytest.warns(BadImageWarning, match="they are left out"):
        autoencoder.fit(images)
    with pytest.warns(BadImageWarning, match="rows are NaN"):
        codes = autoencoder.transform(images)
    assert np.isnan(codes[4]).all() and np.isfinite(codes[:4]).all()
    with pytest.warns(BadImageWarning):
        errors = autoencoder.reconstruction_error(images)
    assert np.isnan(errors).tolist() == [False] * 4 + [True]


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"n_components": 0}, "n_components"),
        ({"image_size": 2}, "image_size"),
        ({"image_size": (8, 8, 3)}, "image_size"),
        ({"image_size": 7.5}, "image_size"),
        ({"image_size": 10**7}, "image_size"),
        ({"early_stopping": True, "validation_fraction": 0.999}, "validation_fraction"),
        ({"batch_size": 1}, "batch_size"),
        ({"corruption": "mask", "corruption_level": 2}, "corruption_level"),
        ({"model": "resnet5000"}, "model"),
    ],
)
def test_a_bad_parameter_is_named(params, match, X):
    with pytest.raises(ValueError, match=match):
        ConvAutoencoder(**{"image_size": 16, "max_epochs": 1, **params}).fit(X)


def test_codes_may_be_a_frame(fitted, X):
    # torch warns of read-only arrays, as a frame has them, once in each process.
    torch.set_warn_always(True)
    codes = fitted.transform(X)
    try:
        restored = fitted.inverse_transform(pd.DataFrame(codes))
    finally:
        torch.set_warn_always(False)
    np.testing.assert_array_equal(restored, fitted.inverse_transform(codes))


def test_bad_data_are_refused(fitted, X):
    with pytest.raises(ValueError, match="at least 2 images"):
        clone(fitted).fit(X[:1])
    with pytest.raises(ValueError, match="codes of 8 features"):
        fitted.inverse_transform(np.zeros((2, 3)))


def test_the_display_shows_original_damaged_and_restored(fitted, X):
    noisy = np.clip(X + np.random.default_rng(0).normal(0, 30, X.shape), 0, 255)
    noisy = noisy.astype(np.uint8)
    display = ReconstructionDisplay.from_estimator(fitted, X, corrupted=noisy, k=5)
    shown = [[one.get_array() for one in row] for row in display.images_]
    np.testing.assert_array_equal(shown[0], X[:5])
    np.testing.assert_array_equal(shown[1], noisy[:5])
    restored = fitted.inverse_transform(fitted.transform(noisy[:5]))
    np.testing.assert_array_equal(shown[2], restored)
    labels = [axes[0].get_ylabel() for axes in display.axes_]
    assert labels == ["original", "corrupted", "restored"]
    plt.close(display.figure_)
    _, ax = plt.subplots()
    display = ReconstructionDisplay.from_estimator(fitted, X, k=3, ax=ax)
    assert display.axes_.shape == (2, 3) and display.figure_ is ax.figure
    plt.close(display.figure_)
    with pytest.raises(ValueError, match="as many images"):
        ReconstructionDisplay.from_estimator(fitted, X, corrupted=noisy[:2])
    with pytest.raises(TypeError, match="must be a fitted ConvAuto.*Got Autoencoder"):
        ReconstructionDisplay.from_estimator(Autoencoder(), X)
