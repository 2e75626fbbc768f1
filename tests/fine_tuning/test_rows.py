"""FineTuneClassifier and FineTuneRegressor over rows of numbers."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skdeepfeat import (
    FineTuneClassifier,
    FineTuneRegressor,
    PretrainedFeatureExtractor,
)
from skdeepfeat.inspection import activation_maps


def make_network(n_columns=6, n_outputs=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(n_columns, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, n_outputs),
    )


def make_rows(n=80, seed=0):
    X, y = make_classification(
        n, 6, n_informative=4, n_classes=3, class_sep=2.0, random_state=seed
    )
    return X, np.array(["a", "b", "c"])[y]


def small(model=None, **params):
    defaults = {"max_epochs": 4, "random_state": 0, "cache": None, "device": "cpu"}
    return FineTuneClassifier(model or make_network(), **{**defaults, **params})


@pytest.fixture(scope="module")
def fitted():
    return small().fit(*make_rows())


def test_features_enter_the_last_linear_layer(fitted):
    X, _ = make_rows()
    with torch.no_grad():
        expected = fitted.body_[:5](torch.from_numpy(X).float()).numpy()
        outputs = fitted.head_(torch.from_numpy(expected)).softmax(1).numpy()
    np.testing.assert_allclose(fitted.transform(X), expected, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(X), outputs, atol=1e-6)
    assert fitted.n_features_in_ == 6
    assert list(fitted.history_["phase"]) == ["head"] + 4 * ["body"]


def test_it_learns_and_leaves_the_model_alone():
    X, y = make_rows(300)
    network = make_network()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    clf = small(network, max_epochs=20, learning_rate=1e-2).fit(X[:200], y[:200])
    assert clf.score(X[200:], y[200:]) > 0.8
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not torch.equal(clf.body_[0].weight, before["0.weight"])
    # Of the old head, nothing is used.
    assert torch.equal(clf.body_[5].weight, before["5.weight"])


@pytest.mark.parametrize(
    ("unfreeze", "trained"),
    [("all", {"0", "1", "3"}), (1, {"3"}), ((0,), {"0", "1"}), (None, set())],
)
def test_stages_are_the_layers_with_matrices(unfreeze, trained):
    network = make_network()
    clf = small(network, unfreeze=unfreeze, max_epochs=1, ema_decay=0)
    clf.fit(*make_rows())
    body = clf.body_ or network
    changed = {
        name.partition(".")[0]
        for name, weight in body.named_parameters()
        if not torch.equal(weight, network.get_parameter(name))
    }
    assert changed == trained


FORMS = {
    "list": lambda X: X.tolist(),
    "float32": np.float32,
    "frame": lambda X: pd.DataFrame(X, columns=list("abcdef")),
    "read-only frame": lambda X: pd.DataFrame(np.float32(X), columns=list("abcdef")),
    "polars": lambda X: pl.DataFrame(X, schema=list("abcdef")),
    "tensor": torch.from_numpy,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_rows_may_be_in_any_table(form, fitted):
    X, y = make_rows()
    found = small().fit(form(X), y).predict_proba(form(X))
    np.testing.assert_allclose(found, fitted.predict_proba(X), atol=1e-5)


def test_a_saved_and_a_pickled_one_predict_the_same(fitted, tmp_path):
    X, _ = make_rows()
    expected = fitted.predict_proba(X)
    fitted.save(tmp_path / "clf.safetensors")
    path = tmp_path / "clf.safetensors"
    loaded = FineTuneClassifier.load(path, model=make_network(seed=1))
    copy = pickle.loads(pickle.dumps(fitted))
    for one in (loaded, copy):
        np.testing.assert_array_equal(one.predict_proba(X), expected)
    # A later fit begins with the same weights.
    again = loaded.set_params(cache=None).fit(*make_rows())
    np.testing.assert_array_equal(again.predict_proba(X), expected)


def test_it_works_in_a_search():
    X, y = make_rows()
    pipeline = make_pipeline(StandardScaler(), small(max_epochs=1))
    grid = {"finetuneclassifier__unfreeze": [None, "all"]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise").fit(X, y)
    assert search.predict(X).shape == y.shape


def test_parts_probes_and_validation_sets(tmp_path):
    X, y = make_rows()
    clf = small()
    clf.partial_fit(X[:40], y[:40], classes=["a", "b", "c"])
    clf.partial_fit(X[40:], y[40:])
    assert clf.n_epochs_ == 2
    clf = small(early_stopping=True, checkpoint=tmp_path / "fit")
    clf.fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:], X_probe=X[:5])
    assert clf.probe_predictions_.shape == (5, 5, 3)
    resumed = clone(clf).fit(X[:60], y[:60], X_val=X[60:], y_val=y[60:], X_probe=X[:5])
    np.testing.assert_array_equal(resumed.predict_proba(X), clf.predict_proba(X))


def test_regression_of_rows():
    X, _ = make_rows(200)
    y = np.sin(X[:, 0]) + X[:, 1]
    model = FineTuneRegressor(
        make_network(), max_epochs=30, learning_rate=1e-2, cache=None, random_state=0
    )
    assert model.fit(X[:150], y[:150]).score(X[150:], y[150:]) > 0.7


def test_teachers_of_rows(fitted):
    X, y = make_rows()
    frame = pd.DataFrame(X, columns=list("abcdef"))
    forest = RandomForestClassifier(30, random_state=0).fit(frame, y)
    parameters = {"max_epochs": 20, "learning_rate": 1e-2, "distill_weight": 1.0}
    student = small(teacher=[fitted, forest], **parameters)
    # Wrong labels, so that it learns from the teachers alone.
    student.fit(frame[:12], y[11::-1], X_unlabeled=frame[12:])
    assert student.score(frame, y) > 0.8


def test_teachers_of_other_input(fitted):
    X, y = make_rows()
    five = small(make_network(5)).fit(X[:, :5], y)
    with pytest.raises(ValueError, match="'teacher'.*rows of 6 numbers.*rows of 5"):
        small(teacher=five).fit(X, y)
    images = np.zeros((6, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="'teacher'.*take images.*rows of 6 numbers"):
        FineTuneClassifier(cache=None, teacher=fitted).fit(images, list("abcabc"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": nn.Conv2d(3, 4, 3)}, "model.*rows of 6 numbers.*flat_image_shape"),
        ({"model": make_network(5)}, "model.*rows of 6 numbers"),
        ({"model": nn.Sequential(nn.Linear(6, 2), nn.Flatten(0))}, "model.*one row"),
        ({"test_time_augmentation": "flip"}, "test_time_augmentation"),
        ({"activation_l1": 0.1}, "activation_l1"),
    ],
)
def test_bad_parameters_are_named(change, match):
    with pytest.raises(ValueError, match=match):
        small().set_params(**change).fit(*make_rows())


def test_bad_rows_are_named(fitted):
    X, y = make_rows()
    with pytest.raises(ValueError, match="NaN"):
        small().fit(np.where(X > 2, np.nan, X), y)
    with pytest.raises(ValueError, match="6 features"):
        fitted.predict(X[:, :5])
    with pytest.raises((ValueError, TypeError), match="flat_image_shape"):
        FineTuneClassifier(cache=None).fit(X, y)


def test_what_needs_images_says_so(fitted, tmp_path):
    X, _ = make_rows()
    with pytest.raises(ValueError, match="images for to_onnx"):
        fitted.to_onnx(tmp_path / "clf.onnx")
    with pytest.raises(ValueError, match="X must hold images"):
        activation_maps(fitted, X)


# -- Networks from a similar domain


@pytest.mark.parametrize("kind", [FineTuneClassifier, PretrainedFeatureExtractor])
def test_an_estimator_is_not_a_network(kind, fitted):
    X = np.zeros((2, 8, 8), np.uint8)
    for model in (fitted, FrozenEstimator(fitted)):
        with pytest.raises(ValueError, match=r"model.*fitted\.body_.*clone"):
            kind(model).fit(X, [0, 1])


@pytest.mark.slow
def test_a_network_of_a_similar_domain_beats_starting_from_nothing():
    # Domain A: clean digits, ten classes. Domain B: other digits with noise, and
    # another question, with few labels.
    X, y = load_digits(return_X_y=True)
    X = X / 16
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    options = {"cache": None, "device": "cpu", "random_state": 0}
    long = {"max_epochs": 15, "learning_rate": 5e-3}
    source = FineTuneClassifier(network, **long, **options).fit(X[:900], y[:900])
    rng = np.random.default_rng(0)
    X, y = X[900:] + rng.normal(0, 0.1, (897, 64)), y[900:] % 2
    gains = []
    for _ in range(3):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(y == odd), 16, False) for odd in (0, 1)]
        )
        known, *new = [
            FineTuneClassifier(model, **how, **options)
            .fit(X[rows], y[rows])
            .score(X, y)
            for model, how in [
                (source.body_, {"max_epochs": 10}),
                (network, {"max_epochs": 10}),
                (network, long),
            ]
        ]
        gains.append(known - max(new))
    assert min(gains) > 0.03


def test_a_tuned_body_takes_other_images_and_classes():
    rng = np.random.default_rng(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip
    preprocessing = {"resize": 24, "crop": 24, "mean": [0.5] * 3, "std": [0.5] * 3}
    options = {"preprocessing": preprocessing, "max_epochs": 1, "cache": None}
    first = FineTuneClassifier(network, **options).fit(
        rng.integers(0, 256, (8, 24, 24, 3), dtype=np.uint8), [0, 1] * 4
    )
    second = FineTuneClassifier(first.body_, **options, image_size=32).fit(
        rng.integers(0, 256, (9, 40, 40, 3), dtype=np.uint8), ["a", "b", "c"] * 3
    )
    assert second.predict_proba(np.zeros((1, 40, 40, 3), np.uint8)).shape == (1, 3)
    features = make_pipeline(
        PretrainedFeatureExtractor(
            second.body_, preprocessing=preprocessing, cache=None
        ),
        LogisticRegression(),
    )
    X = rng.integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)
    assert features.fit(X, [0, 1] * 3).predict(X).shape == (6,)
