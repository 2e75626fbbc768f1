"""top_losses and confusion_examples against brute force."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import confusion_matrix, log_loss
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from skdeepfeat.inspection import confusion_examples, predict_graded, top_losses

N = 40
LABELS = np.array(["cat", "dog", "emu"])[np.arange(N) % 3]


def probabilities(seed=0):
    rng = np.random.default_rng(seed)
    return softmax(2 * rng.normal(size=(N, 3)), axis=1)


def test_losses_are_negative_log_probabilities():
    P = probabilities()
    found = top_losses(LABELS, P)
    assert found["loss"].is_monotonic_decreasing
    assert sorted(found["index"]) == list(range(N))
    assert_allclose(found["loss"].mean(), log_loss(LABELS, P))
    for _, row in found.iterrows():
        mine = P[row["index"]]
        assert row["true"] == LABELS[row["index"]]
        assert row["predicted"] == ["cat", "dog", "emu"][mine.argmax()]
        assert row["probability"] == mine.max()
    assert found["path"].isna().all()
    pd.testing.assert_frame_equal(top_losses(LABELS, P, k=5), found.head(5))


def test_classes_in_another_order():
    P = probabilities()
    found = top_losses(LABELS, P[:, ::-1], classes=["emu", "dog", "cat"])
    pd.testing.assert_frame_equal(found, top_losses(LABELS, P))
    # A label that no image has.
    wide = np.hstack([P, np.zeros((N, 1))])
    more = top_losses(LABELS, wide, classes=["cat", "dog", "emu", "fox"])
    pd.testing.assert_frame_equal(more, found)


def test_a_probability_of_zero_has_a_finite_loss():
    found = top_losses([0, 1], [[0.0, 1.0], [0.0, 1.0]])
    assert np.isfinite(found["loss"]).all()
    assert found["index"].tolist() == [0, 1]
    assert found["loss"].iloc[1] == 0


def test_predicted_labels():
    found = top_losses(["a", "b", "c"], ["a", "c", "c"])
    assert found["index"].tolist() == [1, 0, 2]
    assert found["loss"].tolist() == [1, 0, 0]
    assert found["probability"].isna().all()


def test_numbers():
    y, predicted = np.array([0.5, 2.0, -1.0]), np.array([0.4, -2.0, np.nan])
    found = top_losses(y, predicted)
    assert found["index"].tolist() == [1, 0]
    assert_allclose(found["loss"], [4, 0.1])
    assert top_losses([3, 7], [3.5, 9.5])["index"].tolist() == [1, 0]


def test_images_without_prediction_are_left_out():
    P = probabilities()
    P[[3, 8]] = np.nan
    assert not {3, 8} & set(top_losses(LABELS, P)["index"])
    assert confusion_examples(LABELS, P)["count"].sum() == N - 2


def test_paths():
    paths = [f"pets/{i}.jpg" for i in range(N)]
    found = top_losses(LABELS, probabilities(), X=paths)
    assert found["path"].tolist() == [f"pets/{i}.jpg" for i in found["index"]]
    pixels = np.zeros((N, 4, 4, 3), np.uint8)
    assert top_losses(LABELS, probabilities(), X=pixels)["path"].isna().all()


@pytest.mark.parametrize("graded", [True, False])
def test_confusions_and_their_examples(graded):
    P = probabilities()
    names = np.array(["cat", "dog", "emu"])
    predicted = names[P.argmax(axis=1)]
    found = confusion_examples(LABELS, P if graded else predicted)
    matrix = confusion_matrix(LABELS, predicted)
    assert found["count"].sum() == N
    for _, row in found.iterrows():
        i, j = names.tolist().index(row["true"]), names.tolist().index(row["predicted"])
        assert row["count"] == matrix[i, j]
        cell = np.flatnonzero((LABELS == row["true"]) & (predicted == row["predicted"]))
        best = cell[P[cell].max(axis=1).argmax()] if graded else cell[0]
        assert row["index"] == best
    assert (matrix > 0).sum() == len(found)


@pytest.mark.parametrize("is_fitted", [True, False])
def test_predictions_in_their_most_graded_form(is_fitted):
    X = np.random.default_rng(0).normal(size=(N, 5))
    cv = None if is_fitted else 3

    def wanted(model, method):
        if is_fitted:
            return getattr(model, method)(X)
        return cross_val_predict(model, X, y, cv=3, method=method)

    y = LABELS
    for model in (KNeighborsClassifier(), LogisticRegression()):
        found, classes = predict_graded(model.fit(X, y), X, y, cv)
        assert_allclose(found, wanted(model, "predict_proba"))
        assert classes.tolist() == ["cat", "dog", "emu"]
    ridge = RidgeClassifier().fit(X, y)
    found, _ = predict_graded(ridge, X, y, cv)
    assert_allclose(found, softmax(wanted(ridge, "decision_function"), axis=1))
    y = np.arange(N) % 2
    found, _ = predict_graded(ridge.fit(X, y), X, y, cv)
    assert_allclose(found[:, 1], expit(wanted(ridge, "decision_function")))
    assert_allclose(found.sum(axis=1), 1)
    y = X[:, 0]
    found, classes = predict_graded(Ridge().fit(X, y), X, y, cv)
    assert classes is None
    assert_allclose(found, wanted(Ridge().fit(X, y), "predict"))


@pytest.mark.parametrize("function", [top_losses, confusion_examples])
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"classes": ["cat", "dog"]}, "'classes' .* 3 columns .* 2 labels"),
        ({"classes": ["cat", "dog", "fox"]}, "'classes' .*lacks 'emu'"),
        ({"y_pred": 5 * probabilities()}, "'y_pred' .* probabilities"),
        ({"y_pred": probabilities()[:, 0]}, "'y_pred' .* column for each class"),
        ({"y_pred": probabilities()[1:]}, "inconsistent"),
        ({"y_pred": np.full((N, 3), np.nan)}, "'y_pred' .* NaN"),
        (
            {"y_true": np.array([1, "a"] * (N // 2), dtype=object)},
            "'y_true' .* int, str",
        ),
        ({"y_true": [np.nan, *["cat"] * (N - 1)]}, "y_true must not have missing"),
        ({"y_true": np.eye(3)[np.arange(N) % 3]}, "'y_true' .* one label"),
    ],
)
def test_bad_input(function, changes, match):
    with pytest.raises(ValueError, match=match):
        function(**{"y_true": LABELS, "y_pred": probabilities(), **changes})


def test_bad_input_of_one_function():
    with pytest.raises(ValueError, match="'k' parameter"):
        top_losses(LABELS, probabilities(), k=0)
    with pytest.raises(ValueError, match=f"'X' .* {N} predictions. Got 2 images"):
        top_losses(LABELS, probabilities(), X=["a.png", "b.png"])
    with pytest.raises(ValueError, match="'y_true' .* class labels"):
        confusion_examples([0.5, 1.5], [0.4, 1.2])


def test_what_cannot_predict():
    with pytest.raises(TypeError, match="'estimator' .* Got 'forest'"):
        predict_graded("forest", None, None)


def test_two_classes_of_booleans():
    found = confusion_examples(np.array([True, False, True]), [[0, 1], [1, 0], [1, 0]])
    assert_array_equal(found["predicted"], [False, False, True])
    assert found["index"].tolist() == [1, 2, 0]
