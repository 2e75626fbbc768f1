"""Whether features became better: a linear model on a few labeled images."""

import numpy as np
from sklearn.model_selection import cross_val_score
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples

from .._utils._columns import check_column
from .._utils._linear_model import linear_model
from ..feature_extraction import errors_about

# Folds, at most.
_N_FOLDS = 5


class Probe:
    """The score of a linear model on the features of a body.

    Parameters
    ----------
    X : array-like of images, shape (n_probe,)
        In any form, not only in that of the images that are trained on.
    y : array-like, shape (n_probe,)
        Class labels, or real numbers.

    Raises
    ------
    ValueError
        If there are not enough labels to be cross-validated.
    """

    def __init__(self, X, y):
        self._X = X
        self._y = check_column(y, "y_probe", _num_samples(X), "X_probe")
        self._is_regression = type_of_target(self._y) == "continuous"
        self._n_folds(self._y)

    def score(self, extractor):
        """Return the mean score of the folds.

        Parameters
        ----------
        extractor : PretrainedFeatureExtractor
        """
        if extractor.flat_image_shape is not None and not _is_table(self._X):
            extractor.set_params(flat_image_shape=None)
        with errors_about("X_probe"):
            # scikit-learn may be set to return frames.
            features = np.asarray(extractor.fit_transform(self._X))
        readable = np.isfinite(features).all(axis=1)
        features, y = features[readable], self._y[readable]
        model = linear_model(not self._is_regression, features.shape[1])
        return float(cross_val_score(model, features, y, cv=self._n_folds(y)).mean())

    def _n_folds(self, y):
        """Return the number of folds for labels."""
        if self._is_regression:
            n_members = len(y) // 2  # R² needs two images in each fold
        else:
            _, counts = np.unique(y, return_counts=True)
            n_members = counts.min() if len(counts) > 1 else 0
        if n_members < 2:
            raise ValueError(
                "y_probe must have at least 2 classes with at least 2 images each that "
                "can be read, or numbers for at least 4, to be cross-validated. Got "
                f"{len(y)} entries."
            )
        return min(_N_FOLDS, int(n_members))


def _is_table(X):
    """Return whether X holds flat rows, and not images."""
    if hasattr(X, "columns"):
        return len(X.columns) > 1
    if hasattr(X, "ndim"):
        return X.ndim == 2
    first = X[0]
    return isinstance(first, (list, tuple)) or getattr(first, "ndim", 0) == 1
