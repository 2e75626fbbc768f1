"""The transferability scores against brute force and scikit-learn's own evidence."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import softmax
from scipy.stats import entropy
from sklearn.covariance import LedoitWolf
from sklearn.cross_decomposition import CCA
from sklearn.linear_model import BayesianRidge

from skdeepfeat.inspection import transfer_scores

LABELS = np.array(["a", "b", "c"])[np.arange(90) % 3]


def features(n_features, seed=0):
    rng = np.random.default_rng(seed)
    F = rng.normal(size=(90, n_features)) + 2
    F[:, 0] += LABELS == "a"
    return F


@pytest.mark.parametrize("n_features", [5, 60, 90, 300])
def test_logme_is_the_evidence_of_bayesian_ridge(n_features):
    F = features(n_features)
    model = BayesianRidge(
        fit_intercept=False, compute_score=True, tol=1e-10, max_iter=5000
    )
    wanted = np.mean(
        [model.fit(F, LABELS == one).scores_[-1] / len(F) for one in "abc"]
    )
    assert_allclose(transfer_scores(F, LABELS)["logme"], wanted, rtol=1e-6)
    target = F[:, 0] + features(1, seed=1)[:, 0]
    found = transfer_scores(F, target)
    assert_allclose(
        found["logme"], model.fit(F, target).scores_[-1] / len(F), rtol=1e-6
    )
    assert np.isnan([found["h_score"], found["leep"], found["nce"]]).all()


@pytest.mark.parametrize("n_features", [5, 300])
def test_h_score_by_brute_force(n_features):
    F = features(n_features)
    centered = F - F.mean(axis=0)
    between = np.zeros((n_features, n_features))
    for label in LABELS:
        mean = centered[label == LABELS].mean(axis=0)
        between += np.outer(mean, mean) / len(F)
    model = LedoitWolf().fit(F)
    wanted = np.trace(np.linalg.inv(model.covariance_) @ between)
    wanted *= 1 - model.shrinkage_
    assert_allclose(transfer_scores(F, LABELS)["h_score"], wanted)


def test_h_score_is_the_sum_of_squared_canonical_correlations():
    # With many samples and features of unequal variance, hardly anything is shrunk.
    rng = np.random.default_rng(0)
    y = np.arange(20_000) % 3
    F = (rng.normal(size=(len(y), 4)) + np.eye(3, 4)[y]) @ np.diag([1, 2, 3, 4])
    indicators = np.eye(3)[y][:, :2]
    U, V = CCA(2, scale=False, max_iter=5000).fit_transform(F, indicators)
    wanted = sum(np.corrcoef(u, v)[0, 1] ** 2 for u, v in zip(U.T, V.T, strict=True))
    assert_allclose(transfer_scores(F, y)["h_score"], wanted, rtol=0.01)


def test_leep_and_nce_by_brute_force():
    rng = np.random.default_rng(0)
    P = softmax(3 * rng.normal(size=(90, 4)), axis=1)
    found = transfer_scores(features(5), LABELS, P)
    total = 0.0
    for i in range(90):
        predicted = 0.0
        for z in range(4):
            with_label = sum(P[k, z] for k in range(90) if LABELS[k] == LABELS[i])
            predicted += P[i, z] * with_label / P[:, z].sum()
        total += np.log(predicted)
    assert_allclose(found["leep"], total / 90)
    table = np.zeros((4, 3))
    np.add.at(table, (P.argmax(axis=1), np.arange(90) % 3), 1 / 90)
    conditional = entropy(table.ravel()) - entropy(table.sum(axis=1))
    assert_allclose(found["nce"], -conditional)


def test_source_classes_that_no_image_has():
    P = np.zeros((90, 5))
    P[np.arange(90), np.arange(90) % 3] = 1
    found = transfer_scores(features(5), LABELS, P)
    assert found["leep"] == found["nce"] == 0  # the labels are known from P


def test_better_features_score_higher():
    scales = np.arange(1, 6)
    noise = np.random.default_rng(0).normal(size=(90, 5))
    better = transfer_scores(features(5) * scales, LABELS)
    worse = transfer_scores(noise * scales, LABELS)
    assert better["logme"] > worse["logme"]
    assert better["h_score"] > worse["h_score"]


@pytest.mark.parametrize("F", [np.zeros((90, 4)), np.ones((90, 4)), np.eye(90)])
def test_degenerate_features_have_finite_scores(F):
    found = transfer_scores(F, LABELS)
    assert np.isfinite([found["logme"], found["h_score"]]).all()
    assert np.isnan([found["leep"], found["nce"]]).all()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"y": ["a"] * 90}, "'y' parameter .*only 'a'"),
        ({"y": LABELS[1:]}, "inconsistent"),
        ({"y": np.eye(2, dtype=int)[np.arange(90) % 2] | 1}, "'y' parameter"),
        ({"F": np.full((90, 2), np.nan)}, "F contains NaN"),
        ({"F": np.zeros(90)}, "2D array"),
        ({"P_source": np.ones((90, 2))}, "'P_source' .*softmax"),
        ({"P_source": np.tile([2.0, -1.0], (90, 1))}, "'P_source' .*softmax"),
        ({"P_source": np.full((89, 2), 0.5)}, "'P_source' .*89 rows"),
        ({"y": np.linspace(0, 1, 90), "P_source": np.full((90, 2), 0.5)}, "'P_source'"),
    ],
)
def test_bad_input(changes, match):
    with pytest.raises(ValueError, match=match):
        transfer_scores(**{"F": features(2), "y": LABELS, **changes})
