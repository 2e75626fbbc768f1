"""Scores of a candidate on several parts of the images."""

import time
from dataclasses import dataclass

import numpy as np
from sklearn.base import clone

from .._utils._folds import standard_error


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of a candidate.

    Attributes
    ----------
    parts : ndarray of float
        One for each fold, or part of a fold.
    n_images : int
        Number of images that were used to train and to score; in the race, only to
        train.
    n_train : int
        Number of images that each fit was given.
    fit_seconds : float
        Of one fit. If the body is not trained, without the computation of features. NaN
        in the race.
    predict_seconds : float
        For one image, without the network.
    """

    parts: np.ndarray
    n_images: int
    n_train: int
    fit_seconds: float = np.nan
    predict_seconds: float = 0.0

    @property
    def mean(self):
        """The mean over the parts."""
        return float(np.mean(self.parts))

    @property
    def error(self):
        """The standard error of the mean; NaN for one part."""
        return standard_error(self.parts)


def cross_validate_head(head, features, y, folds, scorer):
    """Return the `Scores` of a head on known features.

    Parameters
    ----------
    head : estimator
    features : ndarray, shape (n_samples, n_features)
    y : ndarray
    folds : list of (ndarray of int, ndarray of int)
    scorer : callable

    Raises
    ------
    Exception
        What the head or the scorer raises.
    """
    scores, fit_seconds, predict_seconds, n_tested = [], 0.0, 0.0, 0
    for train, test in folds:
        start = time.perf_counter()
        model = clone(head).fit(features[train], y[train])
        fit_seconds += time.perf_counter() - start
        # Other programs do not count, as for the networks.
        start = time.process_time()
        scores.append(scorer(model, features[test], y[test]))
        predict_seconds += time.process_time() - start
        n_tested += len(test)
    return Scores(
        parts=np.array(scores, float),
        n_images=len(y),
        n_train=int(np.mean([len(train) for train, _ in folds])),
        fit_seconds=fit_seconds / len(folds),
        predict_seconds=predict_seconds / n_tested,
    )
