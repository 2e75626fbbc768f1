"""FineTuneClassifier as its users meet it."""

import os
import pathlib
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from networks import CountingNet, fix_weights, rows_counted
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import AdaBoostClassifier, BaggingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    get_scorer,
    log_loss,
    make_scorer,
    roc_auc_score,
    top_k_accuracy_score,
)
from sklearn.model_selection import (
    GridSearchCV,
    cross_val_predict,
    cross_val_score,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from skdeepfeat import (
    FineTuneClassifier,
    PretrainedFeatureExtractor,
    TrainingDivergedError,
)

N = 36
SIZE = 16
NAMES = np.array(["red", "green", "blue"])
NUMBERS = np.arange(N) % 3
LABELS = NAMES[NUMBERS]


class SmallNet(nn.Module):
    """Three stages and a head, all with fixed weights."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.last = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 4)
        fix_weights(self, scale=1 / 3)

    def forward(self, x):
        x = self.middle(self.stem(x).relu()).relu()
        return self.head(self.last(x).relu().mean((2, 3)))


PREPROCESSING = {"resize": SIZE + 4, "crop": (SIZE, SIZE)}


@pytest.fixture(scope="module")
def pixels():
    """Noisy images with more of one colour than of the others."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (N, 20, 24, 3))
    images[np.arange(N), :, :, NUMBERS] += 130
    return images.astype(np.uint8)


@pytest.fixture(scope="module")
def paths(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    return [str(folder / f"{i:02d}.png") for i in range(N)]


def small(**parameters):
    """Return a classifier that is fitted in a fraction of a second."""
    defaults = {
        "model": SmallNet(),
        "preprocessing": PREPROCESSING,
        "max_epochs": 2,
        "batch_size": 12,
        "random_state": 0,
    }
    return FineTuneClassifier(**{**defaults, **parameters})


@pytest.fixture(scope="module")
def fitted(pixels):
    return small(cache=None).fit(pixels, LABELS)


def weights_of(estimator):
    modules = [estimator.head_, estimator.body_]
    return [
        tensor
        for module in modules
        if module is not None
        for tensor in module.state_dict().values()
    ]


def equal_weights(a, b):
    pairs = zip(weights_of(a), weights_of(b), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


# Labels and scores


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LABELS.astype(object),
        LABELS.tolist(),
        pd.Series(LABELS, index=range(100, 100 + N)),
        pd.Series(LABELS, dtype="category"),
        NUMBERS * 10 - 5,
        NUMBERS.astype(float),
        NUMBERS == 1,
        (NUMBERS == 1).tolist(),
        LABELS[:, None],
    ],
    ids=lambda labels: type(labels).__name__ + str(getattr(labels, "dtype", "")),
)
@pytest.mark.filterwarnings("ignore:A column-vector y was passed")
def test_labels_come_back_as_they_were(pixels, labels):
    classifier = small(unfreeze=None).fit(pixels, labels)
    known = np.unique(np.asarray(labels))
    assert_array_equal(classifier.classes_, known)
    predicted = classifier.predict(pixels)
    assert predicted.shape == (N,)
    assert predicted.dtype.kind == np.asarray(labels).dtype.kind
    assert classifier.score(pixels, labels) > 0.9


def test_probabilities_and_scores(fitted, pixels):
    probabilities, scores = [
        getattr(fitted, method)(pixels)
        for method in ("predict_proba", "decision_function")
    ]
    assert probabilities.dtype == scores.dtype == np.float64
    assert probabilities.shape == scores.shape == (N, 3)
    assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    softmax = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert_allclose(probabilities, softmax)
    expected = fitted.classes_[scores.argmax(axis=1)]
    assert_array_equal(fitted.predict(pixels), expected)
    assert fitted.score(pixels, LABELS) == np.mean(expected == LABELS) > 0.9


def test_two_classes_have_one_score(pixels):
    y = np.where(NUMBERS == 1, "yes", "no")
    classifier = small(unfreeze=1).fit(pixels, y)
    scores = classifier.decision_function(pixels)
    assert scores.shape == (N,)
    probabilities = classifier.predict_proba(pixels)
    assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-scores)))
    assert_array_equal(classifier.predict(pixels), np.where(scores > 0, "yes", "no"))


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_several_labels_a_sample(pixels, loss):
    y = np.stack([NUMBERS == 0, NUMBERS != 1, NUMBERS == 2], axis=1).astype(int)
    classifier = small(loss=loss).fit(pixels, y)
    assert classifier.multilabel_
    assert_array_equal(classifier.classes_, [0, 1, 2])
    scores = classifier.decision_function(pixels)
    assert scores.shape == (N, 3)
    predicted = classifier.predict(pixels)
    assert_array_equal(predicted, (scores > 0).astype(int))
    if loss == "cross_entropy":
        probabilities = classifier.predict_proba(pixels)
        assert_allclose(probabilities, 1 / (1 + np.exp(-scores)))
        assert_allclose(classifier.predict_log_proba(pixels), np.log(probabilities))
    assert classifier.score(pixels, y) > 0.9
    nullable = pd.DataFrame(y).astype("Int64")
    assert classifier.score(pixels, nullable) == classifier.score(pixels, y)
    with pytest.raises(ValueError, match="indicator matrix of 3"):
        classifier.partial_fit(pixels, LABELS)


def test_a_label_that_nobody_has_stays_improbable(pixels):
    y = np.stack([NUMBERS == 0, np.zeros(N, bool)], axis=1).astype(int)
    probabilities = small().fit(pixels, y).predict_proba(pixels)
    assert (probabilities[:, 1] < 0.1).all()


@pytest.mark.parametrize("several", [False, True])
def test_a_loss_without_probabilities_offers_none(pixels, several):
    y = np.stack([NUMBERS == 0, NUMBERS == 1], axis=1) if several else NUMBERS == 0
    y = y.astype(int)
    classifier = small(loss="hinge").fit(pixels, y)
    for method in ("predict_proba", "predict_log_proba"):
        assert not hasattr(classifier, method)
        with pytest.raises(AttributeError):
            getattr(classifier, method)
    cause = pytest.raises(AttributeError, getattr, small(loss="hinge"), "predict_proba")
    assert "'hinge'" in str(cause.value.__cause__ or cause.value)
    assert hasattr(small(), "predict_proba") and hasattr(small(), "predict_log_proba")
    scores = classifier.decision_function(pixels)
    assert scores.shape == y.shape
    assert_array_equal(classifier.predict(pixels), (scores > 0).astype(int))
    assert get_scorer("roc_auc")(classifier, pixels, y) == roc_auc_score(y, scores)
    again = pickle.loads(pickle.dumps(classifier))
    assert not hasattr(again, "predict_proba")
    assert_array_equal(again.decision_function(pixels), scores)


def test_logarithms_of_probabilities_that_are_rounded_to_0(pixels):
    classifier = small(unfreeze=None).fit(pixels, LABELS)
    expected = np.log(classifier.predict_proba(pixels))
    assert_allclose(classifier.predict_log_proba(pixels), expected, rtol=1e-9)
    with torch.no_grad():
        classifier.head_[-1].weight.mul_(1e5)
    assert (classifier.predict_proba(pixels) == 0).any()
    assert np.isfinite(classifier.predict_log_proba(pixels)).all()


# In scikit-learn's hands


def test_in_a_pipeline_and_a_grid_search(paths):
    pipe = Pipeline([("same", FunctionTransformer()), ("tune", small())])
    grid = {"tune__unfreeze": [None, 1], "tune__learning_rate": [1e-3, 1e-2]}
    search = GridSearchCV(pipe, grid, cv=2, error_score="raise")
    search.fit(np.array(paths, dtype=object), LABELS)
    assert search.best_score_ > 0.9
    assert search.predict(paths).tolist() == LABELS.tolist()


def test_as_a_step_that_transforms(pixels):
    pipe = make_pipeline(small(cache=None), LogisticRegression())
    assert cross_val_score(pipe, pixels, LABELS, cv=2).mean() > 0.9


def test_cross_val_predict(pixels):
    out = cross_val_predict(small(), pixels, LABELS, cv=3, method="predict_proba")
    assert out.shape == (N, 3)
    assert log_loss(LABELS, out) < np.log(3)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: CalibratedClassifierCV(one, cv=2),
        lambda one: VotingClassifier([("a", one), ("b", one)], voting="soft"),
        lambda one: AdaBoostClassifier(one, n_estimators=2, random_state=0),
        OneVsRestClassifier,
    ],
    ids=["calibrated", "voting", "adaboost", "one-vs-rest"],
)
def test_inside_meta_estimators(pixels, wrap):
    flat = pixels.reshape(N, -1)  # AdaBoost takes tables only
    wrapped = wrap(small(flat_image_shape=pixels.shape[1:], max_epochs=1))
    assert wrapped.fit(flat, LABELS).score(flat, LABELS) > 0.9
    assert_allclose(wrapped.predict_proba(flat).sum(axis=1), 1)


@pytest.mark.parametrize("ensemble", [AdaBoostClassifier, BaggingClassifier])
def test_a_column_of_paths_in_ensembles_that_check_it(paths, ensemble):
    column = np.array(paths).reshape(-1, 1)
    wrapped = ensemble(small(max_epochs=1), n_estimators=2, random_state=0)
    assert wrapped.fit(column, LABELS).score(column, LABELS) > 0.9


def test_top_k_accuracy_through_scikit_learn_s_scorer(fitted, pixels):
    scorer = make_scorer(top_k_accuracy_score, response_method="predict_proba", k=2)
    hits = scorer(fitted, pixels, LABELS)
    ranks = fitted.predict_proba(pixels).argsort(axis=1)[:, 1:]
    expected = (fitted.classes_[ranks] == LABELS[:, None]).any(axis=1).mean()
    assert hits == pytest.approx(expected)
    scores = cross_val_score(small(), pixels, LABELS, cv=2, scoring="top_k_accuracy")
    assert scores.min() > 0.9


def test_all_kinds_of_images_give_equal_predictions(paths, pixels):
    files = [pathlib.Path(path) for path in paths]
    kinds = {
        "paths": paths,
        "Path": files,
        "Series": pd.Series(paths),
        "polars": pl.Series(paths),
        "frame": pd.DataFrame({"photo": paths}),
        "column": np.array(paths, dtype=object)[:, None],
        "bytes": [file.read_bytes() for file in files],
        "PIL": [Image.open(path) for path in paths],
        "list": list(pixels),
        "array": pixels,
        "floats": pixels / 255.0,
        "tensor": torch.from_numpy(pixels).permute(0, 3, 1, 2),
        "flat": pixels.reshape(N, -1),
    }
    brief = {"unfreeze": 1, "max_epochs": 1}
    expected = small(**brief).fit(paths, LABELS).predict_proba(paths)
    for name, X in kinds.items():
        shape = pixels.shape[1:] if name == "flat" else None
        one = small(flat_image_shape=shape, cache=None, **brief).fit(X, LABELS)
        assert_array_equal(one.predict_proba(X), expected, name)


# Weights of samples and classes


@pytest.mark.parametrize("parameters", [{}, {"head_init": "random"}, {"unfreeze": 0}])
def test_rows_of_no_weight_are_as_if_they_were_not_there(pixels, parameters):
    rng = np.random.default_rng(0)
    X = np.concatenate([pixels, rng.integers(0, 256, pixels.shape, dtype=np.uint8)])
    y, weight = np.r_[LABELS, LABELS[::-1]], np.repeat([1.0, 0.0], N)
    one = small(**parameters).fit(X, y, sample_weight=weight)
    other = small(**parameters).fit(pixels, LABELS)
    assert equal_weights(one, other)


@pytest.mark.parametrize("parameters", [{"max_epochs": 5}, {"unfreeze": None}])
def test_heavy_rows_are_fitted_better(pixels, parameters):
    y = np.random.default_rng(1).permutation(LABELS)
    chosen = np.arange(N) < 8
    light = small(**parameters).fit(pixels, y)
    heavy = small(**parameters).fit(pixels, y, np.where(chosen, 50.0, 1.0))

    def loss(classifier):
        probabilities = classifier.predict_proba(pixels[chosen])
        return log_loss(y[chosen], probabilities, labels=classifier.classes_)

    assert loss(heavy) < loss(light)


def test_class_weights(pixels):
    few = np.r_[0:N:3, 1:N:3][:14]  # twelve reds, two greens
    noise = np.random.default_rng(2).integers(0, 256, pixels.shape, dtype=np.uint8)
    X, y = noise[few], LABELS[few]
    plain, balanced, heavy = [
        small(class_weight=one).fit(X, y).predict_proba(noise)[:, 0].mean()
        for one in (None, "balanced", {"green": 100.0, "red": 1.0})
    ]
    assert plain < balanced < heavy


def test_weights_are_checked(pixels):
    for weight, message in [
        (np.ones(N - 1), "sample_weight"),
        (-np.ones(N), "Negative values"),
        (np.zeros(N), "non-zero|a weight of 0"),
        (np.full(N, np.nan), "NaN"),
    ]:
        with pytest.raises(ValueError, match=message):
            small().fit(pixels, LABELS, sample_weight=weight)


def test_a_class_whose_rows_have_no_weight(pixels):
    weight = (NUMBERS != 2).astype(float)
    for parameters in ({}, {"head_init": "random"}):
        classifier = small(**parameters).fit(pixels, LABELS, sample_weight=weight)
        assert classifier.classes_.tolist() == sorted(NAMES)
        blue = classifier.predict_proba(pixels[weight > 0])[:, 0]
        assert blue.mean() < 1 / 3


# One seed, one result


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"dropout": 0.3, "hidden_layer_sizes": (5,), "mixup": 0.2},
        {"augment": "trivial", "optimizer": "sgd", "ema_decay": 0.0},
    ],
)
def test_one_seed_gives_one_result_and_another_another(pixels, parameters):
    first, second = [small(**parameters).fit(pixels, LABELS) for _ in range(2)]
    assert equal_weights(first, second)
    other = small(**parameters, random_state=1)
    assert not equal_weights(first, other.fit(pixels, LABELS))


def test_no_seed_and_generators(pixels):
    free = [small(random_state=None).fit(pixels, LABELS) for _ in range(2)]
    assert not equal_weights(*free)
    same = [
        small(random_state=np.random.RandomState(3)).fit(pixels, LABELS)
        for _ in range(2)
    ]
    assert equal_weights(*same)


def test_nothing_of_the_user_s_is_touched(pixels):
    net = SmallNet().train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    classifier = small(model=net, dropout=0.1, augment="trivial")
    np_before, torch_before = np.random.get_state(), torch.get_rng_state()
    kept = pixels.copy()
    classifier.fit(pixels, LABELS).predict(pixels)
    for now, then in zip(np.random.get_state(), np_before, strict=True):
        assert_array_equal(now, then)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert_array_equal(pixels, kept)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(module.training for module in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


# The contract


def test_clone_and_set_params(fitted, pixels):
    again = clone(fitted)
    assert not hasattr(again, "head_")
    assert again.fit(pixels, LABELS).get_params().keys() == fitted.get_params().keys()
    assert equal_weights(again, fitted)
    again.set_params(model="efficientnet_lite0", preprocessing=None, image_size=32)
    again.set_params(unfreeze=None).fit(pixels, LABELS)
    assert again.transform(pixels).shape == (N, 1280)


def test_names_and_containers_of_features(fitted, paths, pixels):
    names = fitted.get_feature_names_out()
    assert names.tolist() == [f"finetuneclassifier{i}" for i in range(8)]
    frame = pd.DataFrame({"photo": paths}, index=np.arange(N) * 10)
    classifier = small().set_output(transform="pandas").fit(frame, LABELS)
    assert classifier.feature_names_in_.tolist() == ["photo"]
    assert classifier.n_features_in_ == 1
    out = classifier.transform(frame)
    assert out.columns.tolist() == names.tolist()
    assert out.index.tolist() == frame.index.tolist()
    assert_array_equal(out.to_numpy(), fitted.transform(pixels))
    with pytest.raises(ValueError, match="feature names"):
        classifier.predict(frame.rename(columns={"photo": "picture"}))
    classifier.fit(paths, LABELS)
    assert not hasattr(classifier, "feature_names_in_")


FITTED = {
    "classes_", "multilabel_", "head_", "body_", "history_", "n_epochs_",
    "best_epoch_", "best_validation_score_", "n_features_in_",
}  # fmt: skip


def test_every_fit_sets_every_attribute_anew(pixels):
    classifier = small(early_stopping=True, validation_fraction=0.25)
    classifier.fit(pixels, LABELS)
    assert vars(classifier).keys() >= FITTED
    assert classifier.best_epoch_ in (1, 2)
    assert 0 <= classifier.best_validation_score_ <= 1
    classifier.set_params(early_stopping=False, unfreeze=None).fit(pixels, LABELS)
    assert vars(classifier).keys() >= FITTED
    assert classifier.body_ is None
    assert classifier.best_epoch_ is classifier.best_validation_score_ is None
    assert classifier.n_epochs_ == 0
    assert classifier.history_["phase"].tolist() == ["head"]


def test_history(fitted):
    history = fitted.history_
    assert history["phase"].tolist() == ["head", "body", "body"]
    assert history["epoch"].tolist() == [1, 1, 2]
    assert np.isfinite(history["train_loss"]).all()
    assert history["validation_score"].isna().all()
    assert (history["seconds"] > 0).all()
    assert history["learning_rate"][1:].between(0, fitted.learning_rate).all()


def epochs(estimator):
    history = estimator.history_
    return list(zip(history["phase"], history["epoch"], strict=True))


HEAD = ("head", 1)


def test_the_history_goes_on_with_the_fit(pixels, tmp_path):
    classifier = small().partial_fit(pixels, LABELS, classes=NAMES)
    assert epochs(classifier) == [HEAD, ("body", 1)]
    losses = classifier.history_["train_loss"].tolist()
    classifier.partial_fit(pixels, LABELS)
    classifier = pickle.loads(pickle.dumps(classifier)).partial_fit(pixels, LABELS)
    assert epochs(classifier) == [HEAD, ("body", 1), ("body", 2), ("body", 3)]
    assert classifier.history_["train_loss"].tolist()[:2] == losses
    assert classifier.n_epochs_ == 3
    classifier.set_params(warm_start=True, max_epochs=2).fit(pixels, LABELS)
    assert epochs(classifier) == [HEAD, *(("body", i) for i in range(1, 6))]
    assert classifier.n_epochs_ == 5
    assert classifier.history_.dtypes["epoch"].kind == "i"
    # Nothing is trained, so nothing changes.
    classifier.set_params(max_epochs=0).fit(pixels, LABELS)
    assert classifier.n_epochs_ == len(classifier.history_) - 1 == 5
    classifier.set_params(warm_start=False, max_epochs=1).fit(pixels, LABELS)
    assert epochs(classifier) == [HEAD, ("body", 1)]
    assert classifier.n_epochs_ == 1


def test_the_best_epoch_is_counted_as_the_history_does(pixels):
    classifier = small(
        early_stopping=True, validation_fraction=0.3, warm_start=True, max_epochs=3
    ).fit(pixels, LABELS)
    n_first = classifier.n_epochs_
    classifier.fit(pixels, LABELS)
    best = classifier.history_.query(f"epoch == {classifier.best_epoch_}").iloc[-1]
    assert n_first < classifier.best_epoch_ <= classifier.n_epochs_
    assert best["validation_score"] == classifier.best_validation_score_
    kept = classifier.best_epoch_, classifier.best_validation_score_
    classifier.set_params(max_epochs=0).fit(pixels, LABELS)
    assert (classifier.best_epoch_, classifier.best_validation_score_) == kept
    classifier.set_params(max_epochs=3, early_stopping=False).fit(pixels, LABELS)
    assert classifier.best_epoch_ is classifier.best_validation_score_ is None


def test_a_diverging_warm_start_keeps_the_history_so_far(pixels):
    classifier = small().fit(pixels, LABELS)
    classifier.set_params(
        warm_start=True, optimizer="sgd", learning_rate=1e30, max_grad_norm=None
    )
    with pytest.raises(TrainingDivergedError, match="epoch 3"):
        classifier.fit(pixels, LABELS)
    assert epochs(classifier) == [HEAD, ("body", 1), ("body", 2)]
    assert classifier.n_epochs_ == 2


def test_no_epoch_draws_what_an_earlier_one_drew(pixels):
    """Else repeated calls of partial_fit would see the same parts of the images."""
    seen = []
    classifier = small(augment=lambda images: seen.append(images.clone()) or images)
    classifier.partial_fit(pixels, LABELS, classes=NAMES).partial_fit(pixels, LABELS)
    n = len(seen) // 2
    assert not torch.equal(torch.cat(seen[:n]), torch.cat(seen[n:]))


def test_a_resumed_warm_start_has_the_same_history(pixels, tmp_path):
    fits = []
    for _ in range(2):
        classifier = small(checkpoint=tmp_path / "c", warm_start=True)
        classifier.set_params(checkpoint=None).fit(pixels, LABELS)
        fits.append(classifier.set_params(checkpoint=tmp_path / "c"))
        classifier.fit(pixels, LABELS)
    assert epochs(fits[0]) == epochs(fits[1])
    assert epochs(fits[0]) == [HEAD, *(("body", i) for i in range(1, 5))]
    assert equal_weights(*fits)


def test_unfitted(pixels):
    for method in ("predict", "predict_proba", "decision_function", "transform"):
        with pytest.raises(ValueError, match="not fitted"):
            getattr(small(), method)(pixels)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", 3),
        ("weights", 3),
        ("image_size", 0),
        ("flat_image_shape", 3),
        ("preprocessing", 3),
        ("hidden_layer_sizes", 3),
        ("hidden_layer_sizes", (0,)),
        ("hidden_layer_sizes", ("a",)),
        ("hidden_layer_sizes", np.array(3)),
        ("dropout", 1.0),
        ("head_init", "zero"),
        ("head_epochs", -1),
        ("unfreeze", "some"),
        ("unfreeze", -1),
        ("max_epochs", -1),
        ("batch_size", 0),
        ("optimizer", "lion"),
        ("learning_rate", 0.0),
        ("layer_decay", 0.0),
        ("weight_decay", -1.0),
        ("optimizer_params", "none"),
        ("optimizer_params", {"lr": 0.1}),
        ("optimizer_params", {"weight_decay": 0.1}),
        ("optimizer_params", {"momentum": 0.9}),
        ("optimizer_params", {"betas": 3}),
        ("scoring", "accurate"),
        ("scoring", ["accuracy", "f1"]),
        ("schedule", "up"),
        ("warmup", 1.0),
        ("max_grad_norm", 0.0),
        ("ema_decay", 1.0),
        ("loss", "squared_error"),
        ("label_smoothing", 1.0),
        ("class_weight", "even"),
        ("class_weight", [1]),
        ("class_weight", {"nowhere": 1}),
        ("augment", "cutout"),
        ("mixup", -1.0),
        ("test_time_augmentation", "all"),
        ("early_stopping", "yes"),
        ("validation_fraction", 1.0),
        ("n_iter_no_change", 0),
        ("warm_start", "yes"),
        ("precision", "float64"),
        ("device", 3),
        ("device", ["cpu"]),
        ("device", "no_such_device"),
        ("cache", 3),
        ("checkpoint", 3),
        ("on_error", "skip"),
        ("max_pixels", 0),
        ("random_state", "seed"),
        ("verbose", "loud"),
    ],
)
def test_wrong_parameters_are_named(pixels, name, value):
    with pytest.raises((ValueError, TypeError), match=f"'{name}'"):
        small(**{name: value}).fit(pixels, LABELS)


# Going on


def test_warm_start_goes_on_from_the_last_weights(pixels):
    settings = {"schedule": "constant", "learning_rate": 1e-3, "ema_decay": 0.0}
    once = small(**settings).fit(pixels, LABELS)
    before = once.history_["train_loss"].iloc[-1]
    weights = [tensor.clone() for tensor in weights_of(once)]
    again = once.set_params(warm_start=True, max_epochs=3).fit(pixels, LABELS)
    assert again.history_["phase"].tolist() == ["head"] + ["body"] * (2 + 3)
    assert again.history_["train_loss"].iloc[-1] < before
    assert any(
        not torch.equal(a, b) for a, b in zip(weights, weights_of(again), strict=True)
    )
    with pytest.raises(ValueError, match="not among the classes.*grey"):
        again.fit(pixels, np.where(LABELS == "red", "grey", LABELS))
    again.set_params(warm_start=False).fit(pixels, LABELS)
    assert again.history_["phase"].tolist()[0] == "head"


def test_warm_start_leaves_what_an_earlier_fit_gave_to_others_alone(pixels):
    classifier = small().fit(pixels, LABELS)
    body, head = classifier.body_, classifier.head_
    before = [tensor.clone() for tensor in weights_of(classifier)]
    classifier.set_params(warm_start=True).fit(pixels, LABELS)
    after = [*head.state_dict().values(), *body.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_partial_fit(pixels):
    classifier = small()
    with pytest.raises(ValueError, match="'classes' parameter"):
        classifier.partial_fit(pixels, LABELS)
    with pytest.raises(ValueError, match="y must not have missing values"):
        classifier.partial_fit(pixels, np.full(N, np.nan), classes=[0, 1])
    two = NUMBERS < 2
    classifier.partial_fit(pixels[two], LABELS[two], classes=NAMES)
    assert classifier.classes_.tolist() == sorted(NAMES)
    assert classifier.n_epochs_ == 1
    assert classifier.predict_proba(pixels).shape == (N, 3)
    blue = NUMBERS == 2
    classifier.set_params(learning_rate=1e-2)
    for _ in range(15):
        classifier.partial_fit(pixels[blue], LABELS[blue])
    assert (classifier.predict(pixels[blue]) == "blue").mean() > 0.5
    with pytest.raises(ValueError, match="grey"):
        classifier.partial_fit(pixels, np.full(N, "grey"))
    with pytest.raises(ValueError, match="'classes'.*first call"):
        classifier.partial_fit(pixels, LABELS, classes=["red", "blue"])


@pytest.mark.parametrize("unfreeze", [None, 0])
def test_a_head_that_is_fitted_once_is_not_continued(unfreeze, pixels):
    """The images of the second call would be ignored."""
    classifier = small(unfreeze=unfreeze, warm_start=True)
    classifier.partial_fit(pixels, LABELS, classes=NAMES)
    before = classifier.predict_proba(pixels)
    for continue_fit in (classifier.partial_fit, classifier.fit):
        with pytest.raises(ValueError, match="'unfreeze' parameter.*would be ignored"):
            continue_fit(pixels, LABELS[::-1])
    assert_array_equal(classifier.predict_proba(pixels), before)


def test_partial_fit_begins_with_one_class(pixels):
    red = LABELS == "red"
    for parameters in ({}, {"head_init": "random"}):
        classifier = small(**parameters)
        classifier.partial_fit(pixels[red], LABELS[red], classes=NAMES)
        assert classifier.predict_proba(pixels).shape == (N, 3)


def test_a_failed_partial_fit_leaves_no_classes_behind(pixels):
    classifier = small()
    with pytest.raises(ValueError, match="inconsistent"):
        classifier.partial_fit(pixels, LABELS[:3], classes=[*NAMES, "grey"])
    assert classifier.fit(pixels, LABELS).classes_.tolist() == sorted(NAMES)


# Early stopping


def test_early_stopping_restores_the_best_weights(pixels):
    noise = np.random.default_rng(5).permutation(LABELS)
    classifier = small(
        early_stopping=True, validation_fraction=0.3, n_iter_no_change=2,
        max_epochs=30, learning_rate=0.03, ema_decay=0.0,
    )  # fmt: skip
    classifier.fit(pixels, noise)
    history = classifier.history_[classifier.history_["phase"] == "body"]
    scores = history["validation_score"].to_numpy()
    assert classifier.n_epochs_ == len(scores) < 30
    assert classifier.best_epoch_ == scores.argmax() + 1 == len(scores) - 2
    assert classifier.best_validation_score_ == scores.max()


def test_a_validation_set_of_one_s_own(pixels):
    X_val, y_val = pixels[:9], LABELS[:9]
    classifier = small(
        early_stopping=True, n_iter_no_change=3, max_epochs=12, learning_rate=0.05
    ).fit(pixels[9:], LABELS[9:], X_val=X_val, y_val=y_val)
    assert classifier.score(X_val, y_val) == classifier.best_validation_score_
    for wrong in ({"X_val": X_val}, {"y_val": y_val}):
        with pytest.raises(ValueError, match="X_val.*y_val"):
            small().fit(pixels, LABELS, **wrong)
    with pytest.raises(ValueError, match="grey"):
        small().fit(pixels, LABELS, X_val=X_val, y_val=["grey"] * 9)


def test_too_few_rows_to_hold_some_out(pixels):
    with pytest.raises(ValueError, match="'validation_fraction'"):
        small(early_stopping=True).fit(pixels[:4], LABELS[[0, 1, 0, 1]])


# The body


def test_features_are_those_of_the_tuned_body(fitted, pixels):
    features = fitted.transform(pixels)
    assert features.dtype == np.float32
    extractor = PretrainedFeatureExtractor(
        fitted.body_, preprocessing=PREPROCESSING, cache=None
    )
    assert_array_equal(features, extractor.transform(pixels))
    frozen = PretrainedFeatureExtractor(
        SmallNet(), preprocessing=PREPROCESSING, cache=None
    ).transform(pixels)
    assert not np.allclose(features, frozen, rtol=1e-3)
    head = fitted.head_[-1]
    scores = features @ head.weight.numpy().T + head.bias.numpy()
    assert_allclose(fitted.decision_function(pixels), scores, rtol=1e-4, atol=1e-5)


def test_a_body_left_as_it_came_shares_the_extractor_s_rows(pixels, tmp_path):
    log = tmp_path / "log"
    parameters = {"preprocessing": PREPROCESSING, "cache": tmp_path / "cache"}
    extractor = PretrainedFeatureExtractor(CountingNet(log), **parameters)
    expected = extractor.transform(pixels)
    assert rows_counted(log) == N
    classifier = small(model=CountingNet(log), unfreeze=None, **parameters)
    classifier.fit(pixels, LABELS)
    assert classifier.body_ is None
    assert_array_equal(classifier.transform(pixels), expected)
    assert classifier.score(pixels, LABELS) > 0.9
    assert rows_counted(log) == N


@pytest.mark.slow
def test_a_search_computes_frozen_features_once(pixels, tmp_path):
    log = tmp_path / "log"
    classifier = small(model=CountingNet(log), cache=tmp_path / "cache")
    classifier.set_params(unfreeze=None)
    grid = {"head_init": ["logistic", "random"], "class_weight": [None, "balanced"]}
    search = GridSearchCV(classifier, grid, cv=3, n_jobs=2, error_score="raise")
    search.fit(pixels, LABELS)
    assert search.best_score_ > 0.9
    assert rows_counted(log) == N
    assert str(os.getpid()) not in {
        line.split()[1] for line in log.read_text().splitlines()
    }


@pytest.mark.parametrize(
    ("unfreeze", "frozen"),
    [
        (1, ("stem", "middle")),
        (2, ("stem",)),
        (99, ()),
        ("all", ()),
        ("gradual", ()),
    ],
)
def test_only_what_is_unfrozen_changes(pixels, unfreeze, frozen):
    net = SmallNet()
    classifier = small(model=net, unfreeze=unfreeze, max_epochs=4)
    body = classifier.fit(pixels, LABELS).body_.state_dict()
    for name, tensor in net.state_dict().items():
        if name.startswith("head"):
            continue
        held = name.startswith(frozen) if frozen else False
        assert torch.equal(body[name], tensor) == held, name


@pytest.mark.parametrize(
    ("parameters", "rests", "learns"),
    [
        ({"unfreeze": "all"}, True, True),
        ({"unfreeze": "all", "freeze_batch_norm": False}, False, True),
        ({"unfreeze": 1, "freeze_batch_norm": False}, True, False),
    ],
)
def test_statistics_of_batch_normalisations(pixels, parameters, rests, learns):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, stride=2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    body = small(model=net, **parameters).fit(pixels, LABELS).body_
    for name in ("running_mean", "running_var"):
        assert torch.equal(getattr(body[1], name), getattr(net[1], name)) == rests
    assert torch.equal(body[1].weight, net[1].weight) != learns


def test_the_embedded_network_is_tuned(pixels):
    X, y = pixels[:12], LABELS[:12]
    classifier = small(model="efficientnet_lite0", preprocessing=None, image_size=32)
    classifier.set_params(max_epochs=1).fit(X, y)
    frozen = PretrainedFeatureExtractor(image_size=32).transform(X)
    assert classifier.transform(X).shape == frozen.shape == (12, 1280)
    assert not np.allclose(classifier.transform(X), frozen, rtol=1e-3)
    # The store's own network, which all borrow, has not been trained.
    again = PretrainedFeatureExtractor(image_size=32, cache=None).transform(X)
    assert_allclose(again, frozen, rtol=1e-4, atol=1e-5)


# Views


def test_test_time_augmentation_is_the_mean_over_views(fitted, pixels):
    # Stored images are (20, 24), of which their size and the crop leave (20, 20).
    stored = pixels[:, :, 2:22]
    places = [(2, 2), (0, 0), (0, 4), (4, 0), (4, 4)]

    def scores(top, left, mirrored):
        view = stored[:, top : top + SIZE, left : left + SIZE]
        view = view[:, :, ::-1] if mirrored else view
        plain = clone(fitted).set_params(
            preprocessing={"resize": SIZE, "crop": (SIZE, SIZE)}
        )
        vars(plain).update({k: v for k, v in vars(fitted).items() if k.endswith("_")})
        return plain.decision_function(np.ascontiguousarray(view))

    for name, n_places in [("flip", 1), ("flip_crop", 5)]:
        expected = np.mean(
            [
                scores(*place, mirrored)
                for place in places[:n_places]
                for mirrored in (False, True)
            ],
            axis=0,
        )
        fitted.set_params(test_time_augmentation=name)
        try:
            found = fitted.decision_function(pixels)
        finally:
            fitted.set_params(test_time_augmentation=None)
        assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_augmentations(pixels):
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.2)])
    fits = [
        small(augment=augment).fit(pixels, LABELS)
        for augment in (None, "flip_crop", "trivial", transform)
    ]
    for i, one in enumerate(fits):
        assert one.score(pixels, LABELS) > 0.9
        assert not any(equal_weights(one, other) for other in fits[:i])
    assert equal_weights(fits[3], small(augment=transform).fit(pixels, LABELS))
    with pytest.raises(ValueError, match="'augment' parameter.*shape"):
        small(augment=lambda images: images[:, :, :3]).fit(pixels, LABELS)
