"""AdviceDisplay draws the candidates that a TransferAdvisor compared."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import NotFittedError

from skdeepfeat import TransferAdvisor
from skdeepfeat.plotting import AdviceDisplay

matplotlib.use("agg")

CANDIDATES = pd.DataFrame(
    {
        "candidate": ["slow", "tuned", "middle", "worse", "fast"],
        "network": ["a", "a", "b", "b", "c"],
        "head": ["logistic", "fine-tuned", "logistic", "RBF SVM", "logistic"],
        "score": [0.90, 0.91, 0.89, 0.80, 0.70],
        "standard_error": [0.02, 0.03, 0.02, 0.02, 0.02],
        "images_per_second": [10.0, 10.0, 50.0, 40.0, 900.0],
        "recommended": [False, False, True, False, False],
    }
)


def test_what_is_drawn():
    display = AdviceDisplay(candidates=CANDIDATES, score_name="accuracy")
    assert display.plot() is display
    # Slow is beaten by tuned, which is as fast, and worse by middle.
    assert_allclose(display.pareto_.get_xdata(), [10.0, 50.0, 900.0])
    assert_allclose(display.pareto_.get_ydata(), [0.91, 0.89, 0.70])
    assert_allclose(display.limit_.get_ydata(), 0.91 - 0.03)
    labels = [container.get_label() for container in display.points_]
    assert labels == ["a", "a, fine-tuned", "b", "c"]
    assert display.ax_.get_title() == "middle"
    assert display.ax_.get_ylabel() == "Accuracy"
    assert display.ax_.get_xscale() == "log"
    names = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert set(names) > {"recommended", "Pareto set", *labels}
    matplotlib.pyplot.close(display.figure_)


def test_names_of_networks_are_no_formulas():
    candidates = CANDIDATES.assign(network="$\\foo$", candidate="$\\foo$")
    display = AdviceDisplay(candidates=candidates).plot()
    display.figure_.canvas.draw()  # a formula of this kind cannot be drawn
    assert display.ax_.get_title() == "$\\foo$"
    matplotlib.pyplot.close(display.figure_)


def test_own_axes_and_one_candidate_without_error():
    figure, ax = matplotlib.pyplot.subplots()
    one = CANDIDATES.iloc[[2]].assign(standard_error=np.nan)
    display = AdviceDisplay(candidates=one).plot(ax=ax, markersize=9)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert_allclose(display.limit_.get_ydata(), 0.89)
    matplotlib.pyplot.close(figure)


def test_only_of_a_fitted_advisor():
    advisor = TransferAdvisor()
    with pytest.raises(TypeError, match="'estimator'.*TransferAdvisor"):
        AdviceDisplay.from_estimator(DummyClassifier())
    with pytest.raises(NotFittedError):
        AdviceDisplay.from_estimator(advisor)
    advisor.results_ = CANDIDATES.assign(stage="decision")
    advisor.results_.attrs["scoring"] = "R²"
    display = AdviceDisplay.from_estimator(advisor)
    assert display.ax_.get_ylabel() == "R²"
    matplotlib.pyplot.close(display.figure_)


def test_the_line_may_be_that_of_another_score():
    candidates = CANDIDATES.assign(standard_error=[0.01, 0.2, 0.02, 0.02, 0.02])
    display = AdviceDisplay(candidates=candidates).plot()
    assert_allclose(display.limit_.get_ydata(), 0.90 - 0.01)
    assert display.limit_.get_label() == "highest (score - standard error)"
    matplotlib.pyplot.close(display.figure_)


@pytest.mark.parametrize("n", [1, 40])
def test_names_of_any_length_and_number_fit(n):
    name = "_" + "a_long_name." * 12
    candidates = pd.concat(
        [CANDIDATES.assign(network=f"{name}{k}", candidate=name) for k in range(n)]
    )
    candidates["recommended"] = False
    display = AdviceDisplay(candidates=candidates).plot()
    display.figure_.canvas.draw()  # warns if there is no room for the axes
    names = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert len(names) == 3 + 2 * n and max(map(len, names)) == 40
    matplotlib.pyplot.close(display.figure_)
