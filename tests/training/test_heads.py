"""The new head: its layers, folding, and its start against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from torch import nn

from skdeepfeat.training import _heads as heads
from skdeepfeat.training import (
    fit_linear_head,
    fold_standardization,
    make_head,
    standardization,
)


def features_and_labels(n_classes, n=120, n_features=6, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, n_features)).astype(np.float32)
    scores = features @ rng.normal(size=(n_features, n_classes))
    return features, (scores + rng.normal(0, 1, scores.shape)).argmax(1)


def outputs_of(head, features):
    with torch.inference_mode():
        return head.eval()(torch.from_numpy(features)).double().numpy()


def softmax(outputs):
    exponentials = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def kinds(head):
    return [type(layer).__name__ for layer in head]


# -- Layers


def test_linear():
    head = make_head(5, 3)
    assert kinds(head) == ["Linear"]
    assert (head[0].in_features, head[0].out_features) == (5, 3)


def test_hidden_layers_and_dropout():
    head = make_head(5, 3, (8, 4), 0.25)
    layer = ["Dropout", "Linear"]
    assert kinds(head) == [*layer, "ReLU", *layer, "ReLU", *layer]
    sizes = [(one.in_features, one.out_features) for one in head[1::3]]
    assert sizes == [(5, 8), (8, 4), (4, 3)]
    assert {one.p for one in head[0::3]} == {0.25}


def test_the_seed_decides_and_nothing_else_is_touched():
    torchs = torch.get_rng_state()
    first, again, other = (make_head(5, 3, (4,), seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert torch.equal(torch.get_rng_state(), torchs)


# -- Standardisation


def spread_features(n):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, 4)) * [1e-3, 1, 30, 5] + [0, 1e2, -4, 7]
    return features.astype(np.float32)


def test_standardization():
    features = spread_features(50)
    mean, scale = standardization(features)
    assert mean.dtype == scale.dtype == np.float32
    standard = (features - mean) / scale
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-4)
    variance = features.var(axis=0)
    wanted = (50 * variance + heads._PRIOR_SAMPLES * variance.mean()) / (
        50 + heads._PRIOR_SAMPLES
    )
    np.testing.assert_allclose(scale, np.sqrt(wanted), rtol=1e-4)


def test_few_rows_leave_features_their_proportions():
    scale = standardization(spread_features(4))[1]
    assert scale.max() / scale.min() < 1.01


def test_many_rows_bring_features_to_their_own_scale(monkeypatch):
    monkeypatch.setattr(heads, "_PRIOR_SAMPLES", 1e-9)
    features = spread_features(500)
    mean, scale = standardization(features)
    np.testing.assert_allclose(((features - mean) / scale).std(axis=0), 1, rtol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e3])
def test_only_constants(value):
    features = np.full((50, 2), value, np.float32)
    features[::2] *= 1 + 1e-7  # float32's rounding is not a signal
    scale = standardization(features)[1]
    assert (0.9 < scale).all() and (scale <= 1).all()


def test_a_constant_feature_is_not_enlarged():
    features = spread_features(5000)
    features[:, 0] = 1e3 + 1e-4 * features[:, 0]
    mean, scale = standardization(features)
    assert np.abs((features - mean) / scale)[:, 0].max() < 1e-3


@pytest.mark.parametrize(("sizes", "dropout"), [((), 0.0), ((8,), 0.0), ((8, 4), 0.5)])
def test_folding_leaves_the_outputs_as_they_were(sizes, dropout):
    rng = np.random.default_rng(0)
    features = rng.normal(20, 3, (30, 6)).astype(np.float32)
    features[:, 2] = 4.0
    head = make_head(6, 3, sizes, dropout)
    mean, scale = standardization(features)
    before = outputs_of(head, (features - mean) / scale)
    fold_standardization(head, mean, scale)
    np.testing.assert_allclose(outputs_of(head, features), before, atol=1e-5)


# -- Start from scikit-learn


@pytest.fixture
def strengths(monkeypatch):
    """Return a function that leaves one strength to choose from."""

    def only(strength):
        monkeypatch.setattr(heads, "_LOGISTIC_C", (strength,) * 3)

    return only


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_probabilities_are_scikit_learns(strengths, n_classes, dropout):
    strengths(0.01)
    features, labels = features_and_labels(n_classes)
    weights = np.random.default_rng(1).uniform(0.2, 3, len(labels))
    oracle = LogisticRegression(C=0.01, max_iter=300)
    oracle.fit(features, labels, sample_weight=weights)
    head = make_head(6, n_classes, (), dropout)
    fit_linear_head(head, features, labels, weights, task="single", seed=0)
    np.testing.assert_allclose(
        softmax(outputs_of(head, features)), oracle.predict_proba(features), atol=1e-5
    )


@pytest.mark.parametrize("n_labels", [1, 3])
def test_probabilities_of_several_labels_are_scikit_learns(strengths, n_labels):
    strengths(0.01)
    rng = np.random.default_rng(0)
    features, _ = features_and_labels(2)
    scores = features @ rng.normal(size=(6, n_labels))
    targets = (scores > 0.3).astype(np.float32)
    weights = rng.uniform(0.2, 3, len(targets))
    head = make_head(6, n_labels)
    fit_linear_head(head, features, targets, weights, task="multilabel", seed=0)
    found = 1 / (1 + np.exp(-outputs_of(head, features)))
    for label in range(n_labels):
        oracle = LogisticRegression(C=0.01, max_iter=300)
        oracle.fit(features, targets[:, label], sample_weight=weights)
        wanted = oracle.predict_proba(features)[:, 1]
        np.testing.assert_allclose(found[:, label], wanted, atol=1e-5)


def test_labels_that_all_or_none_have():
    features, labels = features_and_labels(2)
    targets = np.column_stack([labels, 0 * labels, 0 * labels + 1]).astype(np.float32)
    head = make_head(6, 3)
    fit_linear_head(
        head, features, targets, np.ones(len(labels)), task="multilabel", seed=0
    )
    found = outputs_of(head, features)
    assert (found[:, 1] < -4).all() and (found[:, 2] > 4).all()
    assert ((found[:, 0] > 0) == labels).mean() > 0.8


@pytest.mark.parametrize("present", [[1], [1, 3], [0, 1, 3]])
def test_classes_that_do_not_occur(strengths, present):
    """A first part of the data need not have all classes."""
    strengths(0.01)
    features, labels = features_and_labels(len(present))
    labels = np.array(present)[labels]
    head = make_head(6, 5)
    fit_linear_head(head, features, labels, np.ones(120), task="single", seed=0)
    found = softmax(outputs_of(head, features))
    absent = np.setdiff1d(np.arange(5), present)
    assert (found[:, absent] < 0.02).all()
    if len(present) > 1:
        oracle = LogisticRegression(C=0.01, max_iter=300).fit(features, labels)
        among = found[:, present] / found[:, present].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(among, oracle.predict_proba(features), atol=1e-5)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_ridge_is_scikit_learns(monkeypatch, n_targets):
    monkeypatch.setattr(heads, "_RIDGE_ALPHAS", (10.0, 10.0))
    rng = np.random.default_rng(0)
    features, _ = features_and_labels(2)
    targets = features @ rng.normal(size=(6, n_targets)) + rng.normal(
        size=(120, n_targets)
    )
    weights = rng.uniform(0.2, 3, 120)
    head = make_head(6, n_targets)
    fit_linear_head(head, features, targets, weights, task="regression", seed=0)
    oracle = Ridge(10.0).fit(features, targets, weights)
    wanted = oracle.predict(features).reshape(120, n_targets)
    np.testing.assert_allclose(outputs_of(head, features), wanted, atol=1e-5)


@pytest.mark.parametrize("informative", ["all", "wide"])
@pytest.mark.parametrize("n_per_class", [2, 4])
def test_few_rows_are_learned_from_as_by_scikit_learn(n_per_class, informative):
    """Features that differ by 100 in variance, many more of them than rows."""
    margins = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        spread = np.geomspace(0.1, 1, 1000)  # standard deviations
        shift = spread * (1 if informative == "all" else spread**2) / 6

        def rows(n, rng=rng, spread=spread, shift=shift):
            labels = np.arange(n) % 2
            noise = rng.normal(size=(n, 1000)) * spread
            return (noise + np.outer(labels, shift)).astype(np.float32), labels

        features, labels = rows(2 * n_per_class)
        test_features, test_labels = rows(1000)
        mean, scale = standardization(features)
        head = make_head(1000, 2)
        fit_linear_head(
            head,
            (features - mean) / scale,
            labels,
            np.ones(len(labels)),
            task="single",
            seed=seed,
        )
        fold_standardization(head, mean, scale)
        found = outputs_of(head, test_features).argmax(1)
        oracle = LogisticRegression().fit(features, labels)
        margins.append(
            (found == test_labels).mean() - oracle.score(test_features, test_labels)
        )
    assert np.mean(margins) > -0.005


def test_few_rows_do_not_blow_up_what_hardly_varies_in_them():
    """A feature may be silent in a handful of rows and speak in others."""
    errors = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        speaks = rng.random((308, 200)) < 0.3
        features = np.where(speaks, rng.gamma(2, size=speaks.shape), 0.0)
        features += 1e-4 * rng.random(features.shape)
        targets = features[:, :100].sum(axis=1) - features[:, 100:].sum(axis=1)
        features, targets = features.astype(np.float32), targets[:, None]
        mean, scale = standardization(features[:8])
        head = make_head(200, 1)
        fit_linear_head(
            head,
            (features[:8] - mean) / scale,
            targets[:8],
            np.ones(8),
            task="regression",
            seed=0,
        )
        fold_standardization(head, mean, scale)
        error = ((outputs_of(head, features[8:]) - targets[8:]) ** 2).mean()
        errors.append(error / targets[8:].var())
    assert np.mean(errors) < 1.3


def strength_of(labels, features, weights=None, seed=0):
    weights = np.ones(len(labels)) if weights is None else weights
    return heads._choose_C(features, labels, weights, seed)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_weakest_penalty_where_strengths_cannot_be_compared(n_classes):
    rng = np.random.default_rng(0)
    n = heads._MIN_SAMPLES_PER_CLASS * n_classes - 1
    labels = rng.permutation(np.arange(n) % n_classes)
    features = rng.normal(size=(n, 20)).astype(np.float32)
    assert strength_of(labels, features) == heads._LOGISTIC_C[-1]
    features = rng.normal(size=(20 * n, 20)).astype(np.float32)
    assert strength_of(np.tile(labels, 20), features) < heads._LOGISTIC_C[-1]


@pytest.mark.parametrize("n_of_rare", [1, 2, 4])
def test_a_rare_class_is_not_an_obstacle(n_of_rare):
    """It may be missing in the rows of a fold, or be the only other one."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 5)).astype(np.float32)
    for n_classes in (2, 3):
        labels = np.arange(40) % (n_classes - 1)
        labels[:n_of_rare] = n_classes - 1
        assert strength_of(labels, features) in heads._LOGISTIC_C


def test_many_rows_are_scored_in_one_fold_only():
    labels = np.arange(2500) % 2
    assert len(list(heads._folds(labels, 0))) == 1
    assert len(list(heads._folds(labels[:1000], 0))) == 3
    assert len(list(heads._folds(labels[:40], 0))) == heads._N_FOLDS


@pytest.mark.parametrize("n_classes", [2, 3])
def test_log_losses_are_scikit_learns(n_classes):
    features, labels = features_and_labels(n_classes)
    weights = np.random.default_rng(1).uniform(0.2, 3, len(labels))
    model = LogisticRegression().fit(features, labels)
    losses = heads._log_losses(model, features, labels)
    wanted = log_loss(labels, model.predict_proba(features), sample_weight=weights)
    assert np.average(losses, weights=weights) == pytest.approx(wanted, rel=1e-5)


def test_noise_asks_for_a_stronger_penalty_than_signal():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 30)).astype(np.float32)
    weights = np.ones(200)
    clear = (features[:, 0] > 0).astype(int)
    noise = rng.integers(0, 2, 200)
    lengths = []
    for labels in (clear, noise):
        head = make_head(30, 2)
        fit_linear_head(head, features, labels, weights, task="single", seed=0)
        lengths.append(float(head[0].weight.detach().norm()))
    assert lengths[0] > 10 * lengths[1]


@pytest.mark.parametrize("n", [2, 3, 6])
def test_few_samples(n):
    """Too few to hold some out, or classes of one sample."""
    features = np.random.default_rng(0).normal(size=(n, 64)).astype(np.float32)
    features -= features.mean(axis=0)
    labels = np.arange(n) % 3
    head = make_head(64, 3)
    fit_linear_head(head, features, labels, np.ones(n), task="single", seed=0)
    assert (outputs_of(head, features).argmax(1) == labels).all()
    head = make_head(64, 1)
    fit_linear_head(
        head, features, labels[:, None] / 3, np.ones(n), task="regression", seed=0
    )
    assert np.isfinite(outputs_of(head, features)).all()


def test_weights_of_zero_take_samples_away(strengths):
    strengths(0.01)
    features, labels = features_and_labels(3)
    kept = np.arange(120) < 80
    results = []
    for rows, weights in (
        (slice(None), kept.astype(float)),
        (kept, np.ones(80)),
    ):
        head = make_head(6, 3)
        fit_linear_head(
            head, features[rows], labels[rows], weights, task="single", seed=0
        )
        results.append(softmax(outputs_of(head, features)))
    np.testing.assert_allclose(*results, atol=1e-5)


def test_gradients_reach_a_started_head():
    features, labels = features_and_labels(3)
    head = make_head(6, 3)
    fit_linear_head(head, features, labels, np.ones(120), task="single", seed=0)
    fold_standardization(head, *standardization(features))
    head(torch.from_numpy(features)).sum().backward()
    assert isinstance(head[0].weight, nn.Parameter)
    assert head[0].weight.grad is not None
