"""The new head: its layers, and a good start for them on features of a frozen body."""

import itertools
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from torch import nn

from .._random import seeded

__all__ = ["fit_linear_head", "fold_standardisation", "make_head", "standardisation"]

# Strengths that are tried on a fifth of the rows; inverse, as scikit-learn has them,
# and for standardised features.
_LOGISTIC_C = (1e-4, 1e-3, 3e-3, 1e-2, 1e-1)
_RIDGE_ALPHAS = tuple(10.0**power for power in range(-1, 6))
_HELD_OUT = 0.2
_FLOAT32_NOISE = 1e-6
# What a label that no sample, or every one, has in training is scored with.
_CERTAIN = 5.0


def make_head(n_features, n_outputs, hidden_layer_sizes=(), dropout=0.0, seed=0):
    """Return a linear head, or one with hidden layers of rectified linear units.

    Parameters
    ----------
    n_features, n_outputs : int
    hidden_layer_sizes : sequence of int, default=()
    dropout : float, default=0.0
        The probability that an input of a linear layer is dropped while training.
    seed : int, default=0

    Returns
    -------
    torch.nn.Sequential
        On the CPU.
    """
    sizes = [n_features, *hidden_layer_sizes, n_outputs]
    layers = []
    with seeded(seed):
        for n_inputs, n_units in itertools.pairwise(sizes):
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            layers += [nn.Linear(n_inputs, n_units), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def standardisation(features):
    """Return mean and scale of each feature; a constant one has the scale 1."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    # What float32 sums leave of a constant is no signal to be made large.
    noise = _FLOAT32_NOISE * np.maximum(np.abs(mean), scale.max(initial=0))
    scale[scale <= noise] = 1.0
    return mean.astype(np.float32), scale.astype(np.float32)


@torch.no_grad()
def fold_standardisation(head, mean, scale):
    """Make a head for standardised features one for the features as they are."""
    first = next(layer for layer in head if isinstance(layer, nn.Linear))
    # In float64, for means that are large beside their scales.
    weight = first.weight.double() / torch.from_numpy(scale).double()
    first.bias.copy_(first.bias - weight @ torch.from_numpy(mean).double())
    first.weight.copy_(weight)


def fit_linear_head(head, features, targets, weights, *, task, seed):
    """Start a linear head from scikit-learn's solution: linear probing.

    Kumar et al., "Fine-tuning can distort pretrained features and underperform
    out-of-distribution", ICLR 2022: a head that fits the features spares them the large
    gradients of a random one.

    Parameters
    ----------
    head : Sequential
        One linear layer; it is filled in.
    features : ndarray of float32, shape (n_samples, n_features)
        Standardised.
    targets : ndarray
        Class numbers (n_samples,), or floats (n_samples, n_outputs).
    weights : ndarray of float, shape (n_samples,)
    task : {"single", "multilabel", "regression"}
    seed : int
    """
    if task == "single":
        n_classes = head[-1].out_features
        coef, intercept = _multiclass(features, targets, weights, n_classes, seed)
    elif task == "multilabel":
        pairs = [_binary(features, column, weights, seed) for column in targets.T]
        coef = np.concatenate([coef for coef, _ in pairs])
        intercept = np.concatenate([intercept for _, intercept in pairs])
    elif task == "regression":
        ridge = RidgeCV(_RIDGE_ALPHAS).fit(features, targets, weights)
        coef, intercept = np.atleast_2d(ridge.coef_), np.ravel(ridge.intercept_)
    else:
        raise ValueError(f"There is no head for the task {task!r}.")
    with torch.no_grad():
        head[-1].weight.copy_(torch.from_numpy(np.asarray(coef, np.float32)))
        head[-1].bias.copy_(torch.from_numpy(np.asarray(intercept, np.float32)))


def _multiclass(features, labels, weights, n_classes, seed):
    """Return (coef, intercept) with a row for each class, whether it occurs or not."""
    present = np.unique(labels)
    if len(present) == 1:
        found, offsets = np.zeros((1, features.shape[1])), np.zeros(1)
    else:
        found, offsets = _logistic(features, labels, weights, seed)
    if len(present) == 2:
        # scikit-learn has one score for two classes; half of it for each of two
        # gives the same probabilities.
        found = np.concatenate([-found / 2, found / 2])
        offsets = np.concatenate([-offsets / 2, offsets / 2])
    coef = np.zeros((n_classes, features.shape[1]))
    intercept = np.full(n_classes, offsets.min() - _CERTAIN)
    coef[present], intercept[present] = found, offsets
    return coef, intercept


def _binary(features, labels, weights, seed):
    if labels.min() == labels.max():
        coef = np.zeros((1, features.shape[1]))
        return coef, np.array([_CERTAIN if labels[0] else -_CERTAIN])
    return _logistic(features, labels.astype(int), weights, seed)


def _logistic(features, labels, weights, seed):
    """Return (coef, intercept), the strength chosen by log loss on held-out rows."""
    strength = _choose_strength(features, labels, weights, seed)
    model = _fit_logistic(features, labels, weights, strength)
    return model.coef_, model.intercept_


def _choose_strength(features, labels, weights, seed):
    counts = np.unique(labels, return_counts=True)[1]
    n_held_out = round(_HELD_OUT * len(labels))
    if counts.min() < 2 or n_held_out < len(counts):
        return _LOGISTIC_C[2]
    rows, held_out = train_test_split(
        np.arange(len(labels)), test_size=n_held_out, stratify=labels, random_state=seed
    )
    losses = []
    for strength in _LOGISTIC_C:
        model = _fit_logistic(features[rows], labels[rows], weights[rows], strength)
        # In float64 and exact: rounded float32 rows do not quite sum to one.
        probabilities = model.predict_proba(features[held_out]).astype(np.float64)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        mass = weights[held_out] if weights[held_out].sum() > 0 else None
        losses.append(
            log_loss(
                labels[held_out],
                probabilities,
                sample_weight=mass,
                labels=model.classes_,
            )
        )
        if losses[-1] > min(losses):
            # From weak to strong weights the loss falls, then rises.
            break
    return _LOGISTIC_C[int(np.argmin(losses))]


def _fit_logistic(features, labels, weights, strength):
    with warnings.catch_warnings():
        # A start need not be the optimum.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=strength, max_iter=300)
        return model.fit(features, labels, sample_weight=weights)
