"""TrajectoryDisplay draws the points that trajectories returns."""

import matplotlib
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skdeepfeat.inspection import trajectories
from skdeepfeat.plotting import TrajectoryDisplay

matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def fits():
    rng = np.random.default_rng(0)
    low, high = rng.uniform(0, 0.2, (3, 5, 6, 2)), rng.uniform(0.8, 1, (2, 4, 6, 2))
    return {"pretrained": list(low), "random": list(high)}


def test_what_is_drawn(fits):
    display = TrajectoryDisplay.from_estimators(fits, random_state=0)
    result = trajectories(fits, random_state=0)
    assert display.points.equals(result.points)
    assert (display.separation, display.mixing) == (result.separation, result.mixing)
    assert len(display.lines_) == 5
    for scatter, name in zip(display.scatters_, fits, strict=True):
        points = result.points[result.points["group"] == name]
        assert_array_equal(scatter.get_offsets(), points[["x", "y"]])
        assert_array_equal(scatter.get_array(), points["epoch"])
        # The color of an epoch is the same in both groups.
        assert scatter.get_clim() == (1, 5)
    crosses, circles = (one.get_paths()[0] for one in display.scatters_)
    assert len(crosses.vertices) == 4 and len(circles.vertices) > 10
    texts = [one.get_text() for one in display.ax_.get_legend().get_texts()]
    assert texts == ["pretrained", "random"]
    assert display.colorbar_.ax.get_ylabel() == "Epoch"


def test_names_of_groups_may_be_anything(fits):
    low, high = fits.values()
    display = TrajectoryDisplay.from_estimators({"$\\foo$": low, 5: high}, method="pca")
    display.figure_.canvas.draw()
    expected = trajectories({"low": low, "high": high}, method="pca")
    assert (display.separation, display.mixing) == (
        expected.separation,
        expected.mixing,
    )


def test_axes_and_options_of_the_user(fits):
    figure, axes = plt.subplots(1, 2)
    result = trajectories(fits, random_state=0)
    display = TrajectoryDisplay.from_result(result, ax=axes[1], s=9, cmap="plasma")
    assert display.ax_ is axes[1] and display.figure_ is figure
    assert display.scatters_[0].get_sizes()[0] == 9
    assert display.scatters_[0].get_cmap().name == "plasma"
    assert display.plot(ax=axes[0]) is display
    assert not axes[0].get_xticks().size


@pytest.mark.parametrize("n_groups", [2, 7])
def test_nothing_lies_over_the_points_or_is_cut(fits, n_groups):
    groups = fits
    if n_groups > 2:
        low = fits["pretrained"]
        groups = {f"a rather long name of group {i}": low for i in range(n_groups)}
    display = TrajectoryDisplay.from_estimators(groups, method="pca", random_state=0)
    display.figure_.canvas.draw()
    legend = display.ax_.get_legend().get_window_extent()
    assert not legend.overlaps(display.ax_.get_window_extent().padded(-2))
    assert display.figure_.bbox.containsx(legend.x0)
    assert display.figure_.bbox.height >= legend.y1
    assert display.ax_.bbox.width > display.figure_.bbox.width / 2
