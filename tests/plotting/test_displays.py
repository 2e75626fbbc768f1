"""The displays, in the form of scikit-learn's."""

import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from networks import SmallNet
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import FineTuneClassifier, FineTuneRegressor
from skdeepfeat.fine_tuning._range_test import (
    LearningRateRangeTest,
    learning_rate_range_test,
)
from skdeepfeat.plotting import FineTuneHistoryDisplay, LearningRateDisplay

matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")

N, SIZE = 40, 12
LABELS = np.arange(N) % 2


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (N, SIZE, SIZE, 3))
    images[np.arange(N), :, :, LABELS] += 60
    return images.astype(np.uint8)


def small(kind=FineTuneClassifier, **parameters):
    defaults = {
        "model": SmallNet(),
        "preprocessing": {"resize": SIZE, "crop": (SIZE, SIZE)},
        "max_epochs": 3,
        "batch_size": 8,
        "random_state": 0,
    }
    return kind(**{**defaults, **parameters})


# Learning rate


def test_a_range_test_from_an_estimator(pixels):
    est = small()
    rates = {"min_learning_rate": 1e-4, "max_learning_rate": 0.1, "n_steps": 12}
    display = LearningRateDisplay.from_estimator(est, pixels, LABELS, **rates)
    expected = learning_rate_range_test(est, pixels, LABELS, **rates)
    assert_array_equal(display.line_.get_xdata(), expected.learning_rates)
    assert_array_equal(display.line_.get_ydata(), expected.smoothed_losses)
    assert_array_equal(display.raw_line_.get_ydata(), expected.losses)
    assert set(display.suggestion_line_.get_xdata()) == {expected.suggestion}
    assert display.ax_.get_xscale() == "log"
    assert display.figure_ is display.ax_.figure
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend[0] == "FineTuneClassifier, smoothed loss"
    assert not hasattr(est, "classes_")


def result(losses, suggestion=1e-3):
    losses = np.asarray(losses, float)
    rates = np.geomspace(1e-6, 1, len(losses))
    return LearningRateRangeTest(rates, losses, losses, suggestion)


def test_a_result_can_be_drawn_again_and_elsewhere():
    _, ax = plt.subplots()
    display = LearningRateDisplay.from_result(
        result([2, 1, 4]), ax=ax, name="mine", color="red", linewidth=3
    )
    assert display.ax_ is ax
    assert display.line_.get_color() == display.suggestion_line_.get_color() == "red"
    assert display.line_.get_linewidth() == 3
    first = display.line_
    assert display.plot(name="other") is display
    assert display.ax_ is not ax
    assert display.line_ is not first
    assert display.line_.get_label() == "other, smoothed loss"


def test_a_divergence_does_not_flatten_the_rest():
    display = LearningRateDisplay.from_result(result([2, 2, 1.5, 1, 1.2, 1e6]))
    low, high = display.ax_.get_ylim()
    assert 0.8 < low < 1
    assert 2 < high < 3


def test_no_suggestion_is_no_line():
    display = LearningRateDisplay.from_result(result([1, 2, 3], np.nan))
    assert display.suggestion_line_ is None
    display.figure_.canvas.draw()


def test_the_legend_covers_no_loss():
    losses = [2] * 8 + [1.5, 1.2, 1, 1, 1]
    display = LearningRateDisplay.from_result(result(losses), name="$\\foo$")
    display.figure_.canvas.draw()  # a formula of this kind cannot be drawn
    box = display.ax_.get_legend().get_window_extent()
    points = display.ax_.transData.transform(display.line_.get_xydata())
    assert not any(box.contains(*point) for point in points)


# History


def history(losses):
    n = len(losses)
    return pd.DataFrame(
        {
            "phase": ["body"] * n,
            "epoch": np.arange(1, n + 1),
            "learning_rate": np.linspace(1e-3, 1e-4, n),
            "train_loss": losses,
            "validation_loss": np.nan,
            "validation_score": np.nan,
        }
    )


def labels_of(display):
    return [line.get_label() for line in display.lines_]


def test_losses_of_both_phases(pixels):
    est = small(head_init="random", head_epochs=4).fit(pixels, LABELS)
    display = FineTuneHistoryDisplay.from_estimator(est)
    assert labels_of(display) == ["Training loss"]
    assert_array_equal(display.lines_[0].get_xdata(), np.arange(1, 8))
    assert_array_equal(display.lines_[0].get_ydata(), est.history_["train_loss"])
    assert display.score_ax_ is display.rate_ax_ is None
    assert display.ax_.get_title() == "FineTuneClassifier"
    words = {text.get_text(): text.xy[0] for text in display.ax_.texts}
    assert words == {"head only": 2.5, "body and head": 6.0}
    # Where one phase ends and the other begins.
    boundaries = [line.get_xdata()[0] for line in display.ax_.lines[1:]]
    assert boundaries == [4.5]


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
def test_scores_have_an_axis_of_their_own(pixels, kind):
    est = small(kind, early_stopping=True, validation_fraction=0.25)
    est.fit(pixels, LABELS)
    _, ax = plt.subplots()
    display = FineTuneHistoryDisplay.from_estimator(
        est, show_learning_rate=True, ax=ax, name="A fit", linestyle=":"
    )
    assert display.ax_ is ax
    assert labels_of(display) == [
        "Training loss", "Validation loss", "Validation score", "Learning rate",
    ]  # fmt: skip
    columns = ["train_loss", "validation_loss", "validation_score", "learning_rate"]
    axes = [ax, ax, display.score_ax_, display.rate_ax_]
    for line, column, own in zip(display.lines_, columns, axes, strict=True):
        assert_array_equal(line.get_ydata(), est.history_[column])
        assert line.axes is own
        assert line.get_linestyle() == ":"
    assert len({id(one) for one in axes}) == 3
    assert ax.get_title() == "A fit"
    kept = [line for line in ax.lines if line.get_label() == "Weights kept"]
    assert kept[0].get_xdata()[0] == est.best_epoch_ + 1
    display.figure_.canvas.draw()


def test_a_frozen_body(pixels):
    est = small(unfreeze=None).fit(pixels, LABELS)
    display = FineTuneHistoryDisplay.from_estimator(est, show_learning_rate=True)
    # The solution of phase one has no learning rate.
    assert labels_of(display) == ["Training loss"]
    assert display.plot(name="again") is display


def test_a_pipeline_has_no_history(pixels):
    pipe = make_pipeline(StandardScaler(), FineTuneClassifier())
    with pytest.raises(TypeError, match="'estimator' .*Got Pipeline.* pass the step"):
        FineTuneHistoryDisplay.from_estimator(pipe)


def test_an_unfitted_estimator_has_no_history():
    with pytest.raises(NotFittedError):
        FineTuneHistoryDisplay.from_estimator(small())


def test_without_matplotlib_the_extra_is_named(monkeypatch, pixels):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'skdeepfeat\[plot\]'"):
        LearningRateDisplay.from_result(result([2, 1, 4]))
    est = small(unfreeze=None).fit(pixels, LABELS)
    with pytest.raises(ImportError, match=r"pip install 'skdeepfeat\[plot\]'"):
        FineTuneHistoryDisplay.from_estimator(est)


def test_a_title_is_no_formula_and_fits():
    display = FineTuneHistoryDisplay(
        history=history([1.0, 2.0]), estimator_name="$\\foo$" * 40
    ).plot()
    display.figure_.canvas.draw()
    assert len(display.ax_.get_title()) == 60


def test_one_epoch_and_none():
    for n in (1, 0):
        display = FineTuneHistoryDisplay(history=history([1.0] * n)).plot()
        display.figure_.canvas.draw()
        assert len(display.ax_.texts) == n
    display = FineTuneHistoryDisplay(history=history([1.0])).plot(
        show_learning_rate=True
    )
    low, high = display.ax_.get_xlim()
    ticks = [one for one in display.ax_.get_xticks() if low < one < high]
    assert ticks == [1.0]


def test_axes_on_the_right_have_room_in_narrow_figures():
    _, ax = plt.subplots(figsize=(4, 4), layout="constrained")
    scored = history([1.0, 2.0]).assign(validation_score=[0.1001, 0.1002])
    display = FineTuneHistoryDisplay(history=scored).plot(ax, show_learning_rate=True)
    display.figure_.canvas.draw()
    label = display.score_ax_.yaxis.label.get_window_extent()
    spine = display.rate_ax_.spines["right"].get_window_extent()
    assert label.x1 < spine.x0
