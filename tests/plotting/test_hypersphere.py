"""HypersphereDisplay: densities of angles, and what is drawn of them."""

import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import vonmises
from sklearn import config_context
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from skdeepfeat import Autoencoder
from skdeepfeat.plotting import HypersphereDisplay

matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def on_circle(angles, lengths=1.0):
    return lengths * np.column_stack([np.cos(angles), np.sin(angles)]).T


def test_densities_are_means_of_von_mises_densities():
    angles = np.array([3.1, -3.1, 0.2, 1.0, 1.1])
    Z = on_circle(angles, np.array([1, 5, 0.1, 2, 3])).T
    y = ["b", "b", "a", "a", "a"]
    display = HypersphereDisplay.from_predictions(Z, y, bandwidth=0.3)
    assert_allclose(display.angles, angles)
    kernels = vonmises.pdf(display.grid[:, None], kappa=1 / 0.3**2, loc=angles)
    assert_allclose(display.density, kernels.mean(axis=1))
    assert display.classes.tolist() == ["a", "b"]
    assert_allclose(display.class_densities[1], kernels[:, :2].mean(axis=1))
    totals = np.trapezoid(display.class_densities, display.grid, axis=1)
    assert_allclose(totals, 1, rtol=1e-6)
    for line, density in zip(display.lines_, display.class_densities, strict=True):
        assert_allclose(line.get_ydata(), density)
    # The ring is as dark as the density on the circle itself.
    drawn = np.reshape(display.ring_.get_array(), (-1, len(display.grid)))
    assert_allclose(drawn[len(drawn) // 2], display.density)


def test_uniform_angles_have_a_uniform_density():
    angles = np.linspace(-np.pi, np.pi, 200, endpoint=False)
    display = HypersphereDisplay.from_predictions(on_circle(angles).T)
    assert_allclose(display.density, 1 / (2 * np.pi), rtol=1e-6)
    assert len(display.lines_) == 1


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_more_dimensions_if_scikit_learn_returns_frames(container):
    Z = np.random.default_rng(0).normal(size=(30, 6))
    expected = HypersphereDisplay.from_predictions(Z).angles
    with config_context(transform_output=container):
        assert_array_equal(HypersphereDisplay.from_predictions(Z).angles, expected)


def test_more_dimensions_are_projected_from_the_sphere():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(30, 6))
    Z[3] = np.nan
    display = HypersphereDisplay.from_predictions(Z, np.arange(30) % 3)
    known = np.delete(Z, 3, axis=0)
    unit = known / np.linalg.norm(known, axis=1, keepdims=True)
    plane = PCA(2).fit_transform(unit)
    expected = np.arctan2(plane[:, 1], plane[:, 0])
    assert_allclose(np.cos(display.angles - expected), 1)


def test_it_draws_the_codes_of_an_estimator_on_the_users_axes():
    X, y = load_digits(return_X_y=True)
    X, y = X[:100], y[:100]
    autoencoder = Autoencoder((16, 2), max_epochs=1, random_state=0).fit(X)
    _, axes = plt.subplots(1, 2)
    display = HypersphereDisplay.from_estimator(autoencoder, X, y, ax=axes)
    assert list(display.axes_) == list(axes)
    assert_allclose(
        np.tan(display.angles), np.divide(*autoencoder.transform(X).T[::-1])
    )
    labels = [text.get_text() for text in axes[1].get_legend().get_texts()]
    assert labels == [str(k) for k in range(10)]
    _, ax = plt.subplots()
    assert display.plot(ax, linewidth=3) is display
    assert display.figure_ is ax.figure and display.lines_[0].get_linewidth() == 3


@pytest.mark.parametrize(
    ("Z", "params", "match"),
    [
        ([[1.0], [2.0]], {}, "2"),
        ([[1.0, 0.0], [0.0, 0.0]], {}, "Row 1 .* is zero"),
        ([[np.nan, 0.0], [1, 0], [0, 0], [0, 1]], {}, "Row 2 .* is zero"),
        ([[1.0, 0.0], [np.nan, 0.0]], {}, "2 rows without NaN"),
        ([[1.0, 0.0], [np.inf, 0.0]], {}, "infinity"),
        ([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]], {}, "same direction"),
        ([[1.0, 0.0], [0.0, 1.0]], {"y": [0]}, "inconsistent"),
        ([[1.0, 0.0], [0.0, 1.0]], {"y": [0.1, 0.2]}, "'y'.*class label"),
        ([[1.0, 0.0], [0.0, 1.0]], {"bandwidth": 0}, "bandwidth"),
    ],
)
def test_bad_input_is_refused(Z, params, match):
    with pytest.raises(ValueError, match=match):
        HypersphereDisplay.from_predictions(Z, **params)


def test_an_estimator_without_features_is_refused():
    with pytest.raises(ValueError, match="estimator"):
        HypersphereDisplay.from_estimator(object(), [[1.0, 2.0]])
