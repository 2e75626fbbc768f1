"""FineTuneRegressor as its users meet it; what it shares is tested with the classifier.

See test_classifier.py.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from networks import SmallNet
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.ensemble import AdaBoostRegressor, VotingRegressor
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score

from skdeepfeat import FineTuneRegressor, PretrainedFeatureExtractor

N = 40
SIZE = 16
PREPROCESSING = {"resize": (SIZE, SIZE), "crop": (SIZE, SIZE)}


@pytest.fixture(scope="module")
def brightness():
    """What is to be learned: between 0 and 1 for red and for blue."""
    return np.random.default_rng(0).random((N, 2))


@pytest.fixture(scope="module")
def pixels(brightness):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 60, (N, SIZE, SIZE, 3))
    images[..., [0, 2]] += (brightness * 190).astype(int)[:, None, None]
    return images.astype(np.uint8)


def small(**parameters):
    """Return a regressor that is fitted in a fraction of a second."""
    defaults = {
        "model": SmallNet(),
        "preprocessing": PREPROCESSING,
        "max_epochs": 2,
        "batch_size": 10,
        "random_state": 0,
    }
    return FineTuneRegressor(**{**defaults, **parameters})


def equal_weights(a, b):
    pairs = [
        *zip(a.head_.parameters(), b.head_.parameters(), strict=True),
        *zip(a.body_.parameters(), b.body_.parameters(), strict=True),
    ]
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber"])
@pytest.mark.parametrize("unfreeze", [None, "all"])
def test_one_target_of_any_scale(pixels, brightness, loss, unfreeze):
    y = brightness[:, 0]
    plain = small(loss=loss, unfreeze=unfreeze).fit(pixels, y)
    predicted = plain.predict(pixels)
    assert predicted.shape == (N,)
    assert predicted.dtype == np.float64
    assert r2_score(y, predicted) == plain.score(pixels, y) > 0.9
    far = clone(plain).fit(pixels, 1e6 * y - 1e8)
    assert_allclose((far.predict(pixels) + 1e8) / 1e6, predicted, atol=1e-3)


@pytest.mark.parametrize("container", [np.array, pd.DataFrame, list])
def test_many_targets(pixels, brightness, container):
    y = brightness * [1, 1000]
    regressor = small().fit(pixels, container(y))
    assert regressor.predict(pixels).shape == (N, 2)
    assert regressor.score(pixels, y) > 0.85
    with pytest.raises(ValueError, match="y has 1 target.*fitted with 2"):
        regressor.partial_fit(pixels, y[:, 0])


def test_a_column_is_one_target(pixels, brightness):
    column = brightness[:, :1]
    with pytest.warns(match="column-vector"):
        regressor = small().fit(pixels, column)
    expected = small().fit(pixels, column.ravel()).predict(pixels)
    assert_array_equal(regressor.predict(pixels), expected)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_equal_targets_are_predicted(pixels, value):
    predicted = small().fit(pixels, np.full(N, value)).predict(pixels)
    assert_allclose(predicted, value, rtol=1e-3, atol=0.1)


def test_one_image(pixels):
    assert_allclose(
        small().fit(pixels[:1], [5.0]).predict(pixels[:1]), [5.0], rtol=1e-3
    )


def test_one_seed_gives_one_result(pixels, brightness):
    first, second = [small().fit(pixels, brightness) for _ in range(2)]
    assert equal_weights(first, second)
    assert not equal_weights(first, small(random_state=1).fit(pixels, brightness))


@pytest.mark.parametrize("head_init", ["ridge", "random"])
def test_rows_of_no_weight_are_as_if_they_were_not_there(pixels, brightness, head_init):
    X, y = np.concatenate([pixels, 255 - pixels]), np.r_[brightness, 99 + brightness]
    weight = np.repeat([2.0, 0.0], N)
    one = small(head_init=head_init).fit(X, y, sample_weight=weight)
    other = small(head_init=head_init).fit(pixels, brightness)
    assert equal_weights(one, other)
    assert_array_equal(one.predict(pixels), other.predict(pixels))


def test_heavy_rows_are_fitted_better(pixels):
    y = np.random.default_rng(3).random(N)
    chosen = np.arange(N) < 6
    light = small().fit(pixels, y)
    heavy = small().fit(pixels, y, np.where(chosen, 100.0, 1.0))
    errors = [
        mean_squared_error(y[chosen], one.predict(pixels[chosen]))
        for one in (light, heavy)
    ]
    assert errors[1] < errors[0]


def test_in_scikit_learn_s_hands(pixels, brightness):
    y = brightness[:, 0]
    search = GridSearchCV(small(), {"unfreeze": [None, "all"]}, cv=2)
    assert search.fit(pixels, y).best_score_ > 0.8
    assert cross_val_score(small(), pixels, brightness, cv=2).min() > 0.6
    flat = pixels.reshape(N, -1)
    table = small(flat_image_shape=(SIZE, SIZE, 3), max_epochs=1)
    for ensemble in (
        VotingRegressor([("a", table), ("b", table)]),
        AdaBoostRegressor(table, n_estimators=2, random_state=0),
    ):
        assert ensemble.fit(flat, y).score(flat, y) > 0.8


def test_early_stopping_and_the_best_weights(pixels, brightness):
    regressor = small(
        early_stopping=True, n_iter_no_change=2, max_epochs=40, learning_rate=0.1,
        schedule="constant", ema_decay=0.0,
    )  # fmt: skip
    y = brightness[:, 0]
    regressor.fit(pixels[10:], y[10:], X_val=pixels[:10], y_val=y[:10])
    scores = regressor.history_.query("phase == 'body'")["validation_score"].to_numpy()
    assert regressor.n_epochs_ == len(scores) < 40
    assert regressor.best_epoch_ == scores.argmax() + 1
    found = regressor.score(pixels[:10], y[:10])
    assert found == pytest.approx(regressor.best_validation_score_, rel=1e-4)


def test_partial_fit_and_warm_start_keep_the_first_scale(pixels, brightness):
    y = 100 * brightness[:, 0]
    regressor = small(learning_rate=1e-3)
    for _ in range(3):
        for start in (0, N // 2):
            part = slice(start, start + N // 2)
            regressor.partial_fit(pixels[part], y[part])
    assert regressor.n_epochs_ == 6
    assert regressor.score(pixels, y) > 0.8
    before = regressor.predict(pixels)
    regressor.set_params(warm_start=True, learning_rate=1e-9)
    # Other targets, but hardly a step: what was learned stays.
    after = regressor.fit(pixels, y / 2).predict(pixels)
    assert_allclose(after, before, rtol=1e-3)


def test_features_and_names(pixels, brightness):
    regressor = small().set_output(transform="pandas").fit(pixels, brightness)
    frame = regressor.transform(pixels)
    assert frame.columns[0] == "finetuneregressor0"
    extractor = PretrainedFeatureExtractor(
        regressor.body_, preprocessing=PREPROCESSING, cache=None
    )
    assert_array_equal(frame.to_numpy(), extractor.transform(pixels))


def test_views_are_averaged(pixels, brightness):
    regressor = small().fit(pixels, brightness)
    mirrored = np.ascontiguousarray(pixels[:, :, ::-1])
    expected = (regressor.predict(pixels) + regressor.predict(mirrored)) / 2
    regressor.set_params(test_time_augmentation="flip")
    assert_allclose(regressor.predict(pixels), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (None, "requires y"),
        (np.zeros(N - 1), "inconsistent numbers of samples"),
        (np.r_[np.nan, np.zeros(N - 1)], "y must not have missing"),
        (np.r_[np.inf, np.zeros(N - 1)], "y contains infinity"),
        (["a"] * N, "could not convert"),
        (np.zeros((N, 2, 2)), "dim 3|3 dim"),
    ],
)
def test_wrong_targets(pixels, y, message):
    with pytest.raises(ValueError, match=message):
        small().fit(pixels, y)


@pytest.mark.parametrize(
    ("name", "value"), [("loss", "hinge"), ("dropout", 2), ("unfreeze", "some")]
)
def test_wrong_parameters_are_named(pixels, brightness, name, value):
    with pytest.raises(ValueError, match=f"'{name}'"):
        small(**{name: value}).fit(pixels, brightness)
