"""What is to be decided about: images, targets, folds, and nested parts of them."""

import numbers
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import check_scoring
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
)
from sklearn.utils import _safe_indexing, check_array, check_consistent_length
from sklearn.utils.multiclass import type_of_target

from .._utils._folds import check_number_of_folds, split_into_folds
from .._utils._parameter_errors import choice_error
from .._utils._shown import shown
from .._utils._tensors import without_tensors
from ..inspection import check_targets, score_name

_ADVISOR = "TransferAdvisor"


@dataclass(eq=False)
class Problem:
    """Images and targets in an order in which every beginning is a fair sample.

    Attributes
    ----------
    X : images
    y : ndarray
    classifies : bool
    splits : list of (ndarray, ndarray)
        Indices to train and to test on. Parts of the images use parts of these folds,
        so that all scores are comparable.
    order : ndarray of int
        All indices. Every beginning has nearly the same share of each class and fold.
    scoring : str, callable or None
    seed : int
    failures : dict of int to BadImageError
        Images that turned out to be unreadable, by index.
    """

    X: object
    y: np.ndarray
    classifies: bool
    splits: list
    order: np.ndarray
    scoring: object
    seed: int
    failures: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.y)

    def images(self, indices):
        """Return some of the images."""
        return _safe_indexing(self.X, indices)

    def targets(self, n):
        """Return the targets of the first n images in `order`."""
        return self.y[self.order[:n]]

    def folds(self, n):
        """Return the folds of the first n images, as positions in `order`.

        Raises
        ------
        ValueError
            If so few of the images could be read that no fold is left.
        """
        if not (folds := self._folds(n)):
            n_failed = np.isin(self.order[:n], list(self.failures)).sum()
            raise ValueError(
                "X must have more images that can be read: no fold of 'cv' is left. "
                f"{n_failed} of {n} images could not be read."
            )
        return folds

    def has_folds(self, n):
        """Return whether the first n images have folds."""
        return bool(self._folds(n))

    def _folds(self, n):
        position = np.full(len(self), -1)
        position[self.order[:n]] = np.arange(n)
        position[list(self.failures)] = -1
        folds = []
        for train, test in self.splits:
            train, test = (
                part[part >= 0] for part in (position[train], position[test])
            )
            y_train = self.y[self.order[train]]
            has_one_class = self.classifies and len(np.unique(y_train)) < 2
            if len(test) and len(train) > 1 and not has_one_class:
                folds.append((train, test))
        return folds

    def scorer(self, estimator):
        """Return the scorer of an estimator."""
        return check_scoring(estimator, self.scoring)

    @property
    def score_name(self):
        """The name of the score in words."""
        return score_name(self.scoring, self.classifies)

    @property
    def min_images(self):
        """The fewest images that candidates are compared on."""
        n_classes = len(np.unique(self.y)) if self.classifies else 1
        return min(len(self), max(100, 20 * n_classes, 5 * len(self.splits)))


def make_problem(X, y, *, groups, cv, task, scoring, rng):
    """Check the arguments of a fit, and divide the images into folds.

    Parameters
    ----------
    X, y, groups, cv, task, scoring
        As for `TransferAdvisor`.
    rng : RandomState

    Returns
    -------
    Problem
    """
    if y is None:
        raise ValueError(
            f"{_ADVISOR} requires y to be passed, but the target y is None."
        )
    y, groups = check_targets(y, "y", _ADVISOR), without_tensors(groups, "groups")
    check_consistent_length(X, y, groups)
    classifies = _classifies(y, task)
    if not classifies:
        y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        if (y == y[0]).all():
            raise ValueError(
                "y must have at least two values, or there is nothing to decide. Got "
                f"only {shown(y[0].tolist())}."
            )
    seed = int(rng.randint(2**31 - 1))
    splits = _make_splits(cv, y, groups, classifies, seed)
    if not classifies and scoring is None:
        _check_sizes_for_r2(cv, splits)
    order = _fair_order(y, splits, classifies, seed)
    return Problem(X, y, classifies, splits, order, scoring, seed)


def _classifies(y, task):
    kind = type_of_target(y, input_name="y")
    if task == "auto":
        if kind not in ("binary", "multiclass", "continuous", "continuous-multioutput"):
            raise ValueError(
                f"y must hold one class label or one or several numbers per image for "
                f"{_ADVISOR}. Got targets of the type {kind!r} instead."
            )
        task = "classification" if kind in ("binary", "multiclass") else "regression"
    elif task == "classification" and kind not in ("binary", "multiclass"):
        wanted = f"'regression' or 'auto' for targets of the type {kind!r}"
        raise choice_error("task", wanted, task)
    if task == "regression" and not _are_numbers(y):
        wanted = "'classification' or 'auto' for labels that are not numbers"
        raise choice_error("task", wanted, task)
    if task == "classification" and len(classes := np.unique(y)) < 2:
        raise ValueError(
            "y must have at least two classes, or there is nothing to decide. Got "
            f"only {shown(classes.tolist()[0])}."
        )
    return task == "classification"


def _are_numbers(y):
    try:
        np.asarray(y, np.float64)
    except (TypeError, ValueError):
        return False
    return True


def _make_splits(cv, y, groups, classifies, seed):
    if isinstance(cv, numbers.Integral):
        check_number_of_folds(_ADVISOR, cv, y, classifies, groups)
        if groups is not None:
            # Without shuffling, the folds of groups do not depend on the seed.
            cv = StratifiedGroupKFold(cv) if classifies else GroupKFold(cv)
        else:
            kind = StratifiedKFold if classifies else KFold
            cv = kind(cv, shuffle=True, random_state=seed)
    return split_into_folds(_ADVISOR, cv, y, groups, classifies)


def _check_sizes_for_r2(cv, splits):
    if min(len(test) for _, test in splits) < 2:
        raise ValueError(
            f"The 'cv' parameter of {_ADVISOR} must leave at least two images to test "
            "on in each fold, or there is no R². Use fewer folds, more images or "
            f"scoring='neg_mean_absolute_error'. Got {shown(cv)} instead."
        )


def _fair_order(y, splits, classifies, seed):
    """Return indices in an order in which classes and folds are spread evenly."""
    rng = np.random.default_rng(seed)
    n = len(y)
    fold = np.zeros(n, int)
    for number, (_, test) in enumerate(splits):
        fold[test] = number
    stratum = fold
    if classifies:
        _, label = np.unique(y, return_inverse=True)
        stratum = label * len(splits) + fold
    place = np.empty(n)
    for one in np.unique(stratum):
        members = rng.permutation(np.flatnonzero(stratum == one))
        # Each stratum is spread over the whole order, with a random beginning.
        place[members] = (np.arange(len(members)) + rng.uniform()) / len(members)
    return np.argsort(place, kind="stable")
