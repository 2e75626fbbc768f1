"""What the displays of networks draw, and where."""

import itertools
import sys

import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from relu_networks import SIZE, make_extractor, tiny_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from skdeepfeat import BadImageWarning
from skdeepfeat.inspection import activation_maps, deconvnet, first_filters, top_patches
from skdeepfeat.plotting import (
    ActivationMapDisplay,
    DeconvnetDisplay,
    FilterDisplay,
    TopPatchesDisplay,
)

matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 120, (14, SIZE, SIZE, 3), dtype=np.uint8)
    pixels[::2, :7, :7] = 250
    return pixels


@pytest.fixture(scope="module")
def pipe(images):
    labels = np.tile(["square", "none"], 7)
    model = LogisticRegression(max_iter=10_000)
    return make_pipeline(make_extractor(), model).fit(images, labels)


def titles(display):
    return [ax.get_title() for ax in display.axes_.ravel()]


# Activation maps


def test_titles_fit_above_their_pictures(images):
    """Names of classes may be long, and have dollar signs."""
    maps, names = np.ones((4, 2, 2), np.float32), ["5$ or 6$", *["long" * 20] * 3]
    display = ActivationMapDisplay(maps=maps, images=images[:4], titles=names)
    for ax in (None, plt.subplots(figsize=(4, 3))[1]):
        display.plot(ax=ax)
        display.figure_.draw_without_rendering()
        extents = [one.title.get_window_extent() for one in display.axes_.ravel()]
        for left, right in itertools.pairwise(extents):
            assert left.x1 < right.x0
    assert display.axes_[0, 0].title.get_parse_math() is False


def test_maps_lie_over_the_images_they_belong_to(images, pipe):
    display = ActivationMapDisplay.from_estimator(
        pipe, images[:3], method="cam", kind=("image", "map", "overlay"), n_columns=1
    )
    maps = activation_maps(pipe, images[:3], method="cam")
    assert_array_equal(display.maps, maps)
    assert display.axes_.shape == (3, 3)
    for row, axes in enumerate(display.axes_):
        [photograph], [field] = axes[0].images, axes[1].images
        assert_array_equal(photograph.get_array(), images[row])
        # Enlarged: the mean of each cell stays, and the sides lie over each other.
        values = field.get_array()
        assert values.shape == (SIZE, SIZE)
        cells = np.asarray(values).reshape(8, 2, 8, 2).mean((1, 3))
        assert np.corrcoef(cells.ravel(), maps[row].ravel())[0, 1] > 0.9
        below, above = axes[2].images
        assert below.get_extent() == above.get_extent() == photograph.get_extent()
        # Red and blue are equally far from 0, which cannot be seen.
        assert above.norm.vmin == -above.norm.vmax
        assert_allclose(above.norm.vmax, np.abs(values).max())
        opacity = 0.7 * np.abs(values) / above.norm.vmax
        assert_allclose(above.get_alpha(), opacity, rtol=1e-5)
        low, high = below.get_array().min(), below.get_array().max()
        assert 0 <= low < high <= 1
    assert [title for title in titles(display) if title] == list(
        pipe.predict(images[:3])
    )
    display.figure_.canvas.draw()


def test_a_grid_of_several_and_axes_of_the_user(images, pipe):
    display = ActivationMapDisplay.from_estimator(pipe, images[:8])
    assert display.axes_.shape == (2, 6)
    assert len(display.images_) == 16
    assert [ax.axison for ax in display.axes_.ravel()] == [True] * 8 + [False] * 4
    # One of the user's axes is divided.
    _, ax = plt.subplots()
    assert display.plot(ax=ax, n_columns=4) is display
    assert display.axes_.shape == (2, 4)
    assert display.figure_ is ax.figure
    # Or one for each picture.
    _, several = plt.subplots(3, 3)
    with pytest.raises(ValueError, match="^The 'ax' parameter"):
        display.plot(ax=several, n_columns=4)
    _, several = plt.subplots(2, 4)
    display.plot(ax=several, n_columns=4)
    assert display.axes_[1, 2] is several[1, 2]
    single = ActivationMapDisplay.from_estimator(pipe, images[:1], ax=plt.gca())
    assert single.axes_[0, 0] is several[1, 3]


def test_images_that_could_not_be_read_have_no_map(images, pipe, tmp_path):
    pipe[0].set_params(on_error="nan")
    mixed = [images[0], str(tmp_path / "missing.jpg")]
    with pytest.warns(BadImageWarning):
        display = ActivationMapDisplay.from_estimator(pipe, mixed)
    pipe[0].set_params(on_error="raise")
    assert titles(display)[1] == "not read"
    assert len(display.axes_[0, 0].images) == 2
    assert len(display.axes_[0, 1].images) == 1
    display.figure_.canvas.draw()


def test_flat_and_gray_images_of_any_estimator(images):
    gray = images[..., 0].reshape(len(images), -1)
    model = LogisticRegression(max_iter=10_000).fit(gray / 255, np.tile([0, 1], 7))
    display = ActivationMapDisplay.from_estimator(
        model, gray[:2] / 255, method="occlusion", flat_image_shape=(SIZE, SIZE)
    )
    assert titles(display) == ["0", "1"]
    display.figure_.canvas.draw()


def test_kinds_that_cannot_be_drawn(images, pipe):
    for kind in ("heatmap", (), ("image", "heatmap"), None):
        with pytest.raises(ValueError, match="^The 'kind' parameter"):
            ActivationMapDisplay.from_estimator(pipe, images[:1], kind=kind)


@pytest.mark.parametrize("n_columns", [0, -1, 1.5, True])
def test_numbers_of_columns_that_cannot_be(images, n_columns):
    unfitted = make_pipeline(make_extractor(), LogisticRegression())
    wrong = make_extractor(object())
    for draw in (
        # What would be computed first is impossible.
        lambda: ActivationMapDisplay.from_estimator(
            unfitted, images, n_columns=n_columns
        ),
        lambda: DeconvnetDisplay.from_estimator(
            wrong, images, "conv1", 0, n_columns=n_columns
        ),
        lambda: TopPatchesDisplay.from_estimator(
            wrong, images, "conv1", 0, n_columns=n_columns
        ),
        lambda: FilterDisplay.from_estimator(make_extractor(), n_columns=n_columns),
    ):
        with pytest.raises(ValueError, match=f"^The 'n_columns'.* Got {n_columns} "):
            draw()


# Deconvnet


def test_signals_are_below_their_images(images):
    display = DeconvnetDisplay.from_estimator(
        make_extractor(), images[:3], "conv3", 2, guided=True, n_columns=2
    )
    signals = deconvnet(make_extractor(), images[:3], "conv3", 2, guided=True)
    assert_array_equal(display.signals, signals)
    assert display.axes_.shape == (4, 2)
    for i, (row, column) in enumerate([(0, 0), (0, 1), (2, 0)]):
        above, below = display.axes_[row : row + 2, column]
        assert_array_equal(above.images[0].get_array(), images[i])
        picture = np.asarray(below.images[0].get_array())
        silent = (signals[i] == 0).all(2)
        assert_array_equal(picture[silent], 0.5)
        # Colors are on the side of gray that the sign says.
        assert_array_equal(np.sign(picture - 0.5), np.sign(signals[i]))
    assert [ax.axison for ax in display.axes_[2:, 1]] == [False, False]
    assert display.figure_.get_suptitle() == "layer conv3, feature 2"
    _, ax = plt.subplots()
    assert display.plot(ax=ax) is display
    assert display.axes_[0, 0].get_title(loc="left") == "layer conv3, feature 2"


# Patches


def test_patches_are_beside_their_signals(images):
    display = TopPatchesDisplay.from_estimator(
        make_extractor(), images, "conv2", [1, 4, 5], k=4
    )
    assert display.axes_.shape == (2, 4)
    assert len(display.images_) == 6
    found = top_patches(make_extractor(), images, "conv2", 4, k=4)
    assert_array_equal(display.tops[1].indices, found.indices)
    whole = deconvnet(make_extractor(), images[found.indices], "conv2", 4)
    for cut, expected in zip(display.signals[1], found.cut(whole), strict=True):
        assert_allclose(cut, expected, atol=1e-6)
    assert display.axes_[0, 2].get_title() == "conv2, feature 4"
    patches, signals = display.images_[2:4]
    assert patches.get_array().shape == signals.get_array().shape
    # The mosaic has the pixels of the first patch in its first cell.
    [first, *_] = found.patches
    assert {tuple(pixel) for pixel in first.reshape(-1, 3) / 255} <= {
        tuple(pixel) for pixel in np.asarray(patches.get_array()).reshape(-1, 3)
    }
    display.figure_.canvas.draw()


def test_networks_without_relu_have_patches_only(images):
    extractor = make_extractor(tiny_transformer())
    with pytest.raises(ValueError, match="^The 'estimator' parameter"):
        TopPatchesDisplay.from_estimator(extractor, images, "blocks.0", 1)
    display = TopPatchesDisplay.from_estimator(
        extractor, images, "blocks.0", 1, projection=None
    )
    assert display.axes_.shape == (1, 1)
    _, ax = plt.subplots()
    assert display.plot(ax=ax).axes_[0, 0] is ax
    with pytest.raises(ValueError, match="^The 'features' parameter"):
        TopPatchesDisplay.from_estimator(extractor, images, "blocks.0", [])
    with pytest.raises(ValueError, match="^The 'projection' parameter"):
        TopPatchesDisplay.from_estimator(
            extractor, images, "blocks.0", 1, projection="gradcam"
        )


# Filters


@pytest.mark.parametrize("scale", ["each", "all"])
def test_filters_are_in_color(scale):
    extractor = make_extractor()
    display = FilterDisplay.from_estimator(extractor, scale=scale, name="conv1")
    filters = first_filters(extractor)
    assert_array_equal(display.filters, filters)
    picture = np.asarray(display.image_.get_array())
    n_pixels = 24  # 8 for each of the 3 weights
    first = picture[:n_pixels, :n_pixels][4::8, 4::8]
    if scale == "each":
        expected = (filters[0] - filters[0].min()) / np.ptp(filters[0])
    else:
        expected = 0.5 + filters[0] / (2 * np.abs(filters).max())
    assert_allclose(first, expected, atol=1e-6)
    assert display.ax_.get_title() == "conv1"
    _, ax = plt.subplots()
    assert display.plot(ax=ax).ax_ is ax
    with pytest.raises(ValueError, match="^The 'scale' parameter"):
        display.plot(scale="some")


def test_without_matplotlib_the_extra_is_named(monkeypatch, images, pipe):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for draw in (
        lambda: FilterDisplay.from_estimator(make_extractor()),
        lambda: DeconvnetDisplay.from_estimator(make_extractor(), images, "conv1", 0),
        lambda: ActivationMapDisplay.from_estimator(pipe, images[:1]),
        lambda: TopPatchesDisplay.from_estimator(make_extractor(), images, "conv1", 0),
    ):
        with pytest.raises(ImportError, match=r"pip install 'skdeepfeat\[plot\]'"):
            draw()
