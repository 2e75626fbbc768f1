"""LayerProbeDisplay draws what linear_probe finds."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from networks import CountingStages
from numpy.testing import assert_allclose

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.inspection import linear_probe
from skdeepfeat.plotting import LayerProbeDisplay

matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def probe(n_layers=3, prefix="layer"):
    table = pd.DataFrame(
        {
            "layer": [f"{prefix}{i}" for i in range(n_layers)],
            "depth": np.linspace(0.5, 1, n_layers),
            "score": np.linspace(0.3, 0.9, n_layers),
            "standard_error": 0.1,
        }
    )
    table.attrs["scoring"] = "balanced accuracy"
    return table


def tick_labels(ax):
    return [label.get_text() for label in ax.get_xticklabels()]


def test_from_an_extractor(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(12) % 2
    extractor = PretrainedFeatureExtractor(
        CountingStages(tmp_path / "log"), image_size=32, cache=None
    )
    layers = ["neck", "conv"]
    display = LayerProbeDisplay.from_estimator(extractor, images, labels, layers, cv=3)
    wanted = linear_probe(extractor, images, labels, layers, cv=3)
    assert_allclose(display.line_.get_ydata(), wanted["score"][::-1])  # by depth
    assert [label.split("\n")[0] for label in tick_labels(display.ax_)] == layers[::-1]
    assert display.ax_.get_ylabel() == "Accuracy of a linear model"
    assert display.ax_.get_legend() is None
    display.figure_.canvas.draw()


def test_two_probes_on_the_same_axes():
    _, ax = plt.subplots()
    first = LayerProbeDisplay.from_result(probe(), ax=ax, name="one", color="red")
    second = LayerProbeDisplay(probe=probe())
    assert second.plot(first.ax_, name="two") is second
    assert first.ax_ is second.ax_ is ax
    assert first.line_.get_color() == "red"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    bars = second.errorbar_.lines[2][0].get_segments()
    assert_allclose(bars[0], [[0, 0.2], [0, 0.4]])
    assert tick_labels(ax) == ["layer0\n50%", "layer1\n75%", "layer2\n100%"]
    assert ax.get_ylabel() == "Balanced accuracy of a linear model"


@pytest.mark.parametrize(
    ("n_layers", "prefix"), [(12, "blocks."), (4, "features." * 4)]
)
def test_names_do_not_overlap(n_layers, prefix):
    display = LayerProbeDisplay.from_result(probe(n_layers, prefix))
    display.figure_.canvas.draw()
    labels = display.ax_.get_xticklabels()
    assert all(label.get_rotation() == 45 for label in labels)
    renderer = display.figure_.canvas.get_renderer()
    boxes = [label.get_window_extent(renderer) for label in labels]
    assert all(box.y0 >= 0 for box in boxes)


def test_one_fold_has_no_bars():
    table = probe().assign(standard_error=np.nan)
    display = LayerProbeDisplay.from_result(table)
    display.figure_.canvas.draw()
    assert_allclose(display.line_.get_ydata(), table["score"])
    [bars] = display.errorbar_.lines[2]
    assert not any(len(ends) for ends in bars.get_segments())
