"""`compression_curve` and its picture."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from networks import NormNet
from torch import nn

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.compression import compression_curve
from skdeepfeat.compression._search import METHODS, Method
from skdeepfeat.plotting import CompressionDisplay

matplotlib.use("agg")

DRAWN = ["low_rank", "prune", "obd_weights"]


@pytest.fixture(scope="module")
def extractor():
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3),
        nn.ReLU(), nn.Conv2d(32, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    geometry = {"resize": 16, "crop": (16, 16)}
    return PretrainedFeatureExtractor(network, preprocessing=geometry, cache=None)


@pytest.fixture(scope="module")
def curve(extractor):
    X = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    return compression_curve(
        extractor, X, method=DRAWN, steps=3, runtimes=["torch"], random_state=0
    )


def test_networks_become_smaller(curve):
    assert curve["method"].iloc[0] == "none"
    assert curve["relative_error"].iloc[0] == 0
    for method in DRAWN:
        rows = curve[curve["method"] == method]
        assert 1 <= len(rows) <= 3
        cost = "sparse_bytes" if method == "obd_weights" else "multiply_adds"
        assert (np.diff(rows[cost]) < 0).all()
        assert rows[cost].max() < curve[cost].iloc[0]
        assert (rows["relative_error"] > 0).all()


def test_the_pareto_sets_are_marked(curve):
    # No other network has the features of the original.
    assert curve["pareto_time"].iloc[0] and curve["pareto_bytes"].iloc[0]
    smallest = curve["bytes"] == curve["bytes"].min()
    assert curve.loc[smallest, "pareto_bytes"].any()
    rows = curve[curve["pareto_bytes"]].sort_values("bytes")
    assert rows["relative_error"].is_monotonic_decreasing


@pytest.mark.parametrize("against", ["time", "bytes"])
def test_the_display(curve, against):
    display = CompressionDisplay(curve=curve)
    assert display.plot(against=against) is display
    n_points = sum(len(line.get_xdata()) for line in display.points_)
    assert n_points == len(curve)
    assert len(display.pareto_.get_xdata()) == curve[f"pareto_{against}"].sum()
    _, ax = plt.subplots()
    scored = curve.rename(columns={"relative_error": "score"})
    scored["score"] = 1 - scored["score"]
    again = CompressionDisplay(curve=scored).plot(ax, against=against, alpha=0.5)
    assert again.ax_ is ax and ax.get_ylabel() == "Score"
    assert len(again.pareto_.get_xdata()) == curve[f"pareto_{against}"].sum()
    plt.close("all")


def test_a_display_from_an_estimator(extractor):
    X = np.random.default_rng(1).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    display = CompressionDisplay.from_estimator(
        extractor, X, against="bytes", method="svd", steps=2, runtimes=["torch"],
        random_state=0,
    )  # fmt: skip
    assert isinstance(display.curve, pd.DataFrame)
    assert display.ax_.get_xlabel() == "Megabytes"
    plt.close("all")


def test_bad_input(curve, extractor):
    display = CompressionDisplay(curve=curve)
    with pytest.raises(ValueError, match="'against'"):
        display.plot(against="score")
    with pytest.raises(ValueError, match="'column'"):
        display.plot(column="bytes")
    untimed = curve[["method", "relative_error", "bytes"]]
    with pytest.raises(ValueError, match="'against' parameter must be 'bytes'"):
        CompressionDisplay(curve=untimed).plot()
    X = np.zeros((8, 16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="'steps'"):
        compression_curve(extractor, X, steps=0)
    with pytest.raises(ValueError, match="'method' parameter must be.*Got 'low'"):
        compression_curve(extractor, X, method="low")
    network = PretrainedFeatureExtractor(NormNet(), image_size=32, cache=None)
    with pytest.raises(ValueError, match="nothing to make smaller"):
        compression_curve(network, X, method="prune")


def test_networks_so_far_are_not_lost(extractor, monkeypatch):
    X = np.zeros((8, 16, 16, 3), np.uint8)

    class Interrupted(Method):
        def walk(self, n_steps):
            svd = METHODS["svd"](self._subject, self._model, self._criterion)
            yield from svd.walk(2)
            raise KeyboardInterrupt

    monkeypatch.setitem(METHODS, "prune", Interrupted)
    with pytest.warns(RuntimeWarning, match="interrupted during 'prune'"):
        curve = compression_curve(
            extractor, X, method=["svd", "prune", "tucker"], steps=2,
            runtimes=["torch"], random_state=0,
        )  # fmt: skip
    assert curve["method"].tolist() == ["none", "svd", "svd", "prune", "prune"]


def test_joined_curves_and_names(curve):
    _, ax = plt.subplots()
    own = curve[curve["method"] == "prune"].assign(method="_$\\foo$")
    joined = pd.concat([curve[curve["method"] != "none"], own])
    display = CompressionDisplay(curve=joined).plot(ax)
    display.figure_.canvas.draw()  # a formula of this kind cannot be drawn
    assert [len(line.get_xdata()) for line in display.points_] == [
        len(rows) for _, rows in joined.groupby("method", sort=False)
    ]
    assert len({line.get_color() for line in display.points_}) == len(DRAWN) + 1
    legend = ax.get_legend()
    assert legend.get_texts()[-1].get_text() == "_$\\foo$"
    # Without a layout, what is below the axes would be cut off.
    assert ax.bbox.containsx(legend.get_window_extent().x0)
    assert ax.bbox.containsy(legend.get_window_extent().y0)
    plt.close("all")
