"""trajectories: maps and numbers, on trajectories that are known."""

import numpy as np
import pytest
from networks import SmallNet
from numpy.testing import assert_array_equal
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score

from skdeepfeat import FineTuneClassifier, FineTuneRegressor
from skdeepfeat.inspection import trajectories

N_EPOCHS, N_IMAGES = 6, 8


def bundle(center, n_fits=3, n_epochs=N_EPOCHS, noise=0.01, seed=0):
    """Return fits whose predictions move from 0 towards a center."""
    rng = np.random.default_rng(seed)
    way = np.linspace(0.2, 1, n_epochs)[:, None, None] * center
    shape = (n_epochs, *center.shape)
    return [
        (way + noise * rng.normal(size=shape)).astype(np.float32) for _ in range(n_fits)
    ]


@pytest.fixture
def fits():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(2, N_IMAGES, 2))
    return {
        "pretrained": bundle(centers[0]),
        "random": bundle(centers[1], n_fits=2, n_epochs=4, seed=1),
    }


@pytest.mark.parametrize("method", ["tsne", "isomap", PCA(2)])
def test_points_are_in_the_order_of_the_fits(method, fits):
    found = trajectories(fits, method=method, random_state=0)
    points = found.points
    assert list(points.columns) == ["group", "fit", "epoch", "x", "y"]
    assert len(points) == 3 * 6 + 2 * 4
    assert_array_equal(points["group"].value_counts().loc[[*fits]], [18, 8])
    assert_array_equal(points.query("group == 'random'")["epoch"], [1, 2, 3, 4] * 2)
    assert_array_equal(points.query("group == 'random'")["fit"], np.repeat([0, 1], 4))
    assert np.isfinite(points[["x", "y"]]).all(axis=None)
    again = trajectories(fits, method=method, random_state=0)
    assert again.points.equals(points)


def test_the_map_of_pca_is_that_of_scikit_learn(fits):
    found = trajectories(fits, method=PCA(2)).points[["x", "y"]]
    rows = np.concatenate(
        [one.reshape(len(one), -1) for group in fits.values() for one in group]
    )
    np.testing.assert_allclose(found, PCA(2).fit_transform(rows), atol=1e-5)


def test_separation_is_the_silhouette_of_the_predictions(fits):
    found = trajectories(fits, method=PCA(2))
    rows = np.concatenate(
        [one.reshape(len(one), -1) for group in fits.values() for one in group]
    )
    labels = [name for name, group in fits.items() for one in group for _ in one]
    assert found.separation == pytest.approx(silhouette_score(rows, labels), abs=1e-5)


def test_bundles_that_do_not_overlap_do_not_mix(fits):
    found = trajectories(fits, method=PCA(2))
    assert found.mixing == 0
    assert found.separation > 0.1


def test_bundles_of_the_same_functions_mix():
    center = np.random.default_rng(0).normal(size=(N_IMAGES, 2))
    fits = {"one": bundle(center, 4, seed=0), "other": bundle(center, 4, seed=1)}
    found = trajectories(fits, method=PCA(2))
    assert found.mixing == pytest.approx(4 / 7, abs=0.25)
    assert abs(found.separation) < 0.1


def test_one_group_has_nothing_to_be_separated_from(fits):
    found = trajectories({"pretrained": fits["pretrained"]})
    assert np.isnan(found.separation) and np.isnan(found.mixing)
    one_each = {name: group[:1] for name, group in fits.items()}
    found = trajectories(one_each)
    assert np.isfinite(found.separation) and np.isnan(found.mixing)


def test_images_with_nan_are_left_out(fits):
    expected = trajectories(
        {name: [one[:, 1:] for one in group] for name, group in fits.items()},
        method=PCA(2),
    )
    fits["random"][0][:, 0] = np.nan
    found = trajectories(fits, method=PCA(2))
    assert found.separation == expected.separation


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
def test_estimators(kind):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    estimators = [
        kind(
            SmallNet(), preprocessing={"resize": 16, "crop": (16, 16)}, max_epochs=2,
            cache=None, device="cpu", random_state=seed,
        )
        for seed in range(4)
    ]  # fmt: skip
    y = np.arange(12) % 3
    fits = [one.fit(X, y, X_probe=X[:4]) for one in estimators]
    groups = {"a": fits[:2], "b": fits[2:]}
    found = trajectories(groups, method="isomap")
    assert len(found.points) == 4 * 3
    arrays = {k: [one.probe_predictions_ for one in v] for k, v in groups.items()}
    assert trajectories(arrays, method="isomap").points.equals(found.points)
    without = estimators[0].fit(X, y)
    with pytest.raises(ValueError, match="'fits' parameter .*X_probe"):
        trajectories({"a": [without]})


BAD = {
    "no dict": ([np.zeros((4, 2, 2))], "'fits'"),
    "one epoch": ({"a": [np.zeros((1, 2, 2))]}, "'fits'.*at least 4 epochs"),
    "empty": ({"a": []}, "'fits'"),
    "other images": ({"a": [np.zeros((4, 2, 2)), np.zeros((4, 3, 2))]}, "same images"),
    "no lists": ({"a": FineTuneClassifier()}, "'fits' .*lists of fits"),
    "a table": ({"a": [np.zeros((4, 2))]}, "'fits' .*same images"),
    "all NaN": ({"a": [np.full((4, 2, 2), np.nan)]}, "0 predictions"),
    "no change": ({"a": [np.zeros((4, 2, 2))]}, "'fits' .*same ones in all 4 epochs"),
    "something else": ({"a": ["fit"]}, "'fits' .*Got a str"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    fits, message = BAD[name]
    with pytest.raises((ValueError, TypeError), match=message):
        trajectories(fits)


def test_a_method_must_have_two_columns(fits):
    with pytest.raises(ValueError, match="'method' .*two columns"):
        trajectories(fits, method=PCA(3))
    with pytest.raises(ValueError, match="'method'"):
        trajectories(fits, method="umap")
