"""The new head: its layers, and how a linear one is fitted to features."""

import itertools
import warnings

import numpy as np
import torch
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import StratifiedKFold
from torch import nn

from .._utils._random import seeded

# scikit-learn's C, from strong to weak regularization, for features with an average
# variance of 1. With too few samples the weakest is used.
_LOGISTIC_C = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
_RIDGE_ALPHAS = tuple(10.0**power for power in range(-1, 6))
# Values of C are compared if each class has at least this many samples. Only as many
# folds are used as needed to score enough samples for a clear decision.
_MIN_SAMPLES_PER_CLASS = 16
_N_FOLDS = 5
_ENOUGH_SCORED = 500
# The mean variance of all features has the weight of this many samples.
_PRIOR_SAMPLES = 1000
_FLOAT32_NOISE = 1e-6
# The score of a label that all training samples have, negated if none has it.
_CERTAIN = 5.0


def make_head(n_features, n_outputs, hidden_layer_sizes=(), dropout=0.0, seed=0):
    """Return a head that is linear, or has hidden layers with ReLU.

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


def standardization(features):
    """Return mean and scale of each feature, with nearly one scale for few samples.

    The squared scale is a weighted mean of the variance of the feature, with the weight
    n_samples, and of the mean variance of all features, with the weight
    `_PRIOR_SAMPLES`. With a handful of images, one scale per feature gives the most
    weight to the features that happen to vary least. With thousands, it is slightly
    better than one scale for all (benchmarks/README.md).

    Parameters
    ----------
    features : ndarray of float32, shape (n_samples, n_features)

    Returns
    -------
    mean, scale : ndarray of float32, shape (n_features,)
        The scale is 1 if all features are constant.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    variance = features.var(axis=0, dtype=np.float64)
    # The rounding errors of a constant must not be scaled up.
    variance[variance <= (_FLOAT32_NOISE * mean) ** 2] = 0.0
    common = variance.mean() if variance.any() else 1.0
    own = len(features) / (len(features) + _PRIOR_SAMPLES)
    scale = np.sqrt(own * variance + (1 - own) * common)
    return mean.astype(np.float32), scale.astype(np.float32)


@torch.no_grad()
def fold_standardization(head, mean, scale):
    """Change a head for standardized features into one for the features themselves."""
    first = next(layer for layer in head if isinstance(layer, nn.Linear))
    # In float64, because means may be much larger than scales.
    weight = first.weight.double() / torch.from_numpy(scale).double()
    first.bias.copy_(first.bias - weight @ torch.from_numpy(mean).double())
    first.weight.copy_(weight)


def fit_linear_head(head, features, targets, weights, *, task, seed):
    """Initialize a linear head with the solution of scikit-learn (linear probing).

    A random head would first distort the features by its large gradients (Kumar et al.,
    "Fine-tuning can distort pretrained features and underperform out-of-distribution",
    ICLR 2022).

    Parameters
    ----------
    head : Sequential
        One linear layer, whose weights are set.
    features : ndarray of float32, shape (n_samples, n_features)
        Standardized.
    targets : ndarray
        Class numbers (n_samples,), or floats (n_samples, n_outputs).
    weights : ndarray of float, shape (n_samples,)
        Samples with the weight 0 are not used.
    task : {"single", "multilabel", "regression"}
    seed : int
    """
    used = weights > 0
    features, targets, weights = features[used], targets[used], weights[used]
    if task == "single":
        n_classes = head[-1].out_features
        coef, intercept = _multiclass(features, targets, weights, n_classes, seed)
    elif task == "multilabel":
        pairs = [_binary(features, column, weights, seed) for column in targets.T]
        coef = np.concatenate([coef for coef, _ in pairs])
        intercept = np.concatenate([intercept for _, intercept in pairs])
    else:
        # RidgeCV leaves out one sample, and divides by 0 if there is no other.
        ridge = RidgeCV(_RIDGE_ALPHAS) if len(features) > 1 else Ridge()
        ridge.fit(features, targets, weights)
        coef, intercept = np.atleast_2d(ridge.coef_), np.ravel(ridge.intercept_)
    with torch.no_grad():
        head[-1].weight.copy_(torch.from_numpy(np.asarray(coef, np.float32)))
        head[-1].bias.copy_(torch.from_numpy(np.asarray(intercept, np.float32)))


def _multiclass(features, labels, weights, n_classes, seed):
    """Return (coef, intercept) with a row for each class, also for missing ones."""
    present = np.unique(labels)
    if len(present) == 1:
        found, offsets = np.zeros((1, features.shape[1])), np.zeros(1)
    else:
        found, offsets = _logistic(features, labels, weights, seed)
    if len(present) == 2:
        # scikit-learn has one score for two classes. One half of it for each class
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
    """Return (coef, intercept), with C chosen by cross-validation."""
    C = _choose_C(features, labels, weights, seed)
    [model] = _fit_models(C, [_new_model()], [(features, labels, weights)])
    return model.coef_, model.intercept_


def _choose_C(features, labels, weights, seed):
    """Return the largest C that is not clearly worse than the best one.

    Clearly worse: by more than one standard error of the difference of the log losses
    in cross-validation. With too few samples, no C is clearly better.
    """
    if len(labels) < _MIN_SAMPLES_PER_CLASS * len(np.unique(labels)):
        return _LOGISTIC_C[-1]
    folds = list(_folds(labels, seed))
    parts = [(features[rows], labels[rows], weights[rows]) for rows, _ in folds]
    models = [_new_model() for _ in folds]
    scored_weights = weights[np.concatenate([rows for _, rows in folds])]
    chosen, best = _LOGISTIC_C[-1], None
    for C in _LOGISTIC_C:
        _fit_models(C, models, parts)
        losses = np.concatenate(
            [
                _log_losses(model, features[rows], labels[rows])
                for model, (_, rows) in zip(models, folds, strict=True)
            ]
        )
        if best is not None and _is_worse(losses, best, scored_weights):
            # With growing C, the loss falls and then rises.
            break
        chosen = C
        if best is None or np.average(losses - best, weights=scored_weights) < 0:
            best = losses
    return chosen


def _folds(labels, seed):
    """Yield (rows to fit, rows to score), until enough rows are scored."""
    n_scored = 0
    splits = StratifiedKFold(_N_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # The warning says that a class has fewer samples than there are folds.
        warnings.simplefilter("ignore", UserWarning)
        for rows, scored in splits.split(labels, labels):
            scored = scored[np.isin(labels[scored], labels[rows])]
            if len(np.unique(labels[rows])) > 1 and len(scored):
                yield rows, scored
                n_scored += len(scored)
            if n_scored >= _ENOUGH_SCORED:
                return


def _log_losses(model, features, labels):
    """Return the log loss of each sample."""
    scores = model.decision_function(features).astype(np.float64)
    if scores.ndim == 1:
        return np.logaddexp(0, np.where(labels == model.classes_[1], -scores, scores))
    column = np.searchsorted(model.classes_, labels)
    return logsumexp(scores, axis=1) - scores[np.arange(len(labels)), column]


def _is_worse(losses, best, weights):
    """Whether losses are higher by more than one standard error of the difference."""
    excess = losses - best
    mean = np.average(excess, weights=weights)
    variance = np.average((excess - mean) ** 2, weights=weights)
    return mean > np.sqrt(variance * np.sum(weights**2)) / np.sum(weights)


def _new_model():
    # Each C begins at the solution for the previous one.
    return LogisticRegression(max_iter=300, warm_start=True)


def _fit_models(C, models, parts):
    with warnings.catch_warnings():
        # An initial head need not be the optimum.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for model, (features, labels, weights) in zip(models, parts, strict=True):
            model.set_params(C=C)
            model.fit(features, labels, sample_weight=weights)
    return models
