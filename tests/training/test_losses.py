"""Losses against naive versions, sample by sample, from the papers."""

import math

import numpy as np
import pytest
import torch

from skdeepfeat.training import (
    CLASSIFICATION_LOSSES,
    REGRESSION_LOSSES,
    has_probabilities,
    make_loss,
)
from skdeepfeat.training._losses import LOSSES, Loss


def outputs_and_labels(seed, n_classes=4):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3, (7, n_classes)), rng.integers(0, n_classes, 7)


def found(name, outputs, targets, **options):
    task = "regression" if name in REGRESSION_LOSSES else "single"
    task = "multilabel" if task == "single" and targets.ndim == 2 else task
    result = make_loss(name, task, **options)(
        torch.from_numpy(outputs), torch.from_numpy(targets)
    )
    assert result.shape == (len(outputs),)
    return result.numpy()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("seed", [0, 1])
def test_softmax_cross_entropy(smoothing, seed):
    outputs, labels = outputs_and_labels(seed)
    wanted = []
    for scores, label in zip(outputs, labels, strict=True):
        exponentials = [math.exp(score) for score in scores]
        # q'(k) = (1 - eps) [k = y] + eps / K
        wanted.append(
            -sum(
                ((1 - smoothing) * (k == label) + smoothing / len(scores))
                * math.log(exponentials[k] / sum(exponentials))
                for k in range(len(scores))
            )
        )
    result = found("cross_entropy", outputs, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(result, wanted, rtol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_hinge_of_crammer_and_singer(n_classes, seed):
    outputs, labels = outputs_and_labels(seed, n_classes)
    wanted = [
        max(
            scores[k] + (0 if k == label else 1) - scores[label]
            for k in range(n_classes)
        )
        for scores, label in zip(outputs, labels, strict=True)
    ]
    np.testing.assert_allclose(found("hinge", outputs, labels), wanted, atol=1e-12)


def test_hinge_of_two_classes_is_torchs():
    # Weston and Watkins' sum over the other classes, which torch has, is then one.
    outputs, labels = outputs_and_labels(0, 2)
    torchs = torch.nn.MultiMarginLoss(reduction="none")
    wanted = 2 * torchs(torch.from_numpy(outputs), torch.from_numpy(labels))
    np.testing.assert_allclose(found("hinge", outputs, labels), wanted, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_several_labels(smoothing):
    outputs, _ = outputs_and_labels(0)
    targets = np.random.default_rng(1).integers(0, 2, outputs.shape).astype(float)
    wanted = []
    for scores, ones in zip(outputs, targets, strict=True):
        each = []
        for score, one in zip(scores, ones, strict=True):
            p = 1 / (1 + math.exp(-score))
            q = (1 - smoothing) * one + smoothing / 2
            each.append(-q * math.log(p) - (1 - q) * math.log(1 - p))
        wanted.append(sum(each) / len(each))
    result = found("cross_entropy", outputs, targets, label_smoothing=smoothing)
    np.testing.assert_allclose(result, wanted, rtol=1e-9)


def test_hinge_of_several_labels():
    outputs, _ = outputs_and_labels(0)
    targets = np.random.default_rng(1).integers(0, 2, outputs.shape).astype(float)
    signs = np.where(targets == 1, 1, -1)
    wanted = np.maximum(0, 1 - signs * outputs).mean(axis=1)
    np.testing.assert_allclose(found("hinge", outputs, targets), wanted, atol=1e-12)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_regression(n_outputs):
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(0, 2, (2, 6, n_outputs))
    errors = outputs - targets
    wanted = {
        "squared_error": errors**2,
        "absolute_error": abs(errors),
        "huber": np.where(abs(errors) < 1, errors**2 / 2, abs(errors) - 0.5),
    }
    assert set(wanted) == set(REGRESSION_LOSSES)
    for name, each in wanted.items():
        result = found(name, outputs, targets)
        np.testing.assert_allclose(result, each.mean(axis=1), rtol=1e-12)


# A loss may be for one of the two tasks only.
CLASSIFICATION_PAIRS = [
    (name, task) for name in CLASSIFICATION_LOSSES
    for task in sorted(LOSSES[name].functions)
]  # fmt: skip


@pytest.mark.parametrize(("name", "task"), CLASSIFICATION_PAIRS)
def test_gradient_is_that_of_small_differences(name, task):
    outputs, labels = outputs_and_labels(3)
    targets = np.eye(4)[labels] if task == "multilabel" else labels
    loss = make_loss(name, task)
    targets = torch.from_numpy(targets)
    outputs = torch.from_numpy(outputs).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), outputs)


@pytest.mark.parametrize(("name", "task"), CLASSIFICATION_PAIRS)
def test_large_scores_overflow_nowhere(name, task):
    outputs = np.array([[1e4, -1e4, 0.0]], np.float32)
    several = np.array([[0, 1, 1]], np.float32)
    targets = several if task == "multilabel" else np.array([1])
    assert np.isfinite(found(name, outputs, targets)).all()


def test_a_loss_is_one_entry(monkeypatch):
    one = Loss({"single": lambda outputs, targets, label_smoothing: outputs[:, 0]})
    monkeypatch.setitem(LOSSES, "first_score", one)
    outputs, labels = outputs_and_labels(0)
    loss = make_loss("first_score", "single")
    result = loss(torch.from_numpy(outputs), torch.from_numpy(labels))
    np.testing.assert_array_equal(result, outputs[:, 0])
    assert not has_probabilities("first_score")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("cross_entrpy", "single"),
        ("squared_error", "single"),
        ("cross_entropy", "regression"),
        ("hinge", "regression"),
        (None, "multilabel"),
        ("hinge", "ranking"),
    ],
)
def test_an_unknown_loss_trains_nothing_else(name, task):
    with pytest.raises(ValueError, match="'loss' parameter must be one of"):
        make_loss(name, task)


def test_probabilities():
    assert has_probabilities("cross_entropy")
    assert not has_probabilities("hinge")
    assert not has_probabilities("cross_entrpy")
