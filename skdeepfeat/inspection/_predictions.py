"""What an estimator predicts for each image, compared with what is true."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import expit, softmax
from sklearn.base import is_classifier
from sklearn.model_selection import cross_val_predict
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import type_of_target

from .._utils._columns import check_table
from .._utils._shown import shown
from ._labels import check_targets


@dataclass(frozen=True, eq=False)
class Predictions:
    """True and predicted values, for the images that have a prediction.

    Attributes
    ----------
    index : ndarray of int, shape (n_known,)
        Positions of these images in X.
    true, predicted : ndarray, shape (n_known,)
        Labels, or numbers.
    probabilities : ndarray of float64, shape (n_known, n_classes), or None
        None for a regression and for predicted labels.
    classes : ndarray or None
        The columns of `probabilities`.
    is_regression : bool
    """

    index: np.ndarray
    true: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray | None
    classes: np.ndarray | None
    is_regression: bool

    def of_predicted(self):
        """Return the probability of each predicted label, NaN if it is not known."""
        if self.probabilities is None:
            return np.full(len(self.index), np.nan)
        return self.probabilities.max(axis=1)


def predict_graded(estimator, X, y, cv=None, groups=None):
    """Return predictions in their most graded form, and the classes.

    Parameters
    ----------
    estimator : classifier or regressor
        Fitted if `cv` is None.
    X, y : what it takes
    cv : int, cross-validation generator, iterable or None, default=None
        Not None: each image is predicted by a clone that was not fitted to it.
    groups : array-like or None, default=None

    Returns
    -------
    y_pred : ndarray, shape (n_samples, n_classes) or (n_samples,)
        Probabilities; of a classifier without `predict_proba`, those that its
        `decision_function` gives as logits; of others, what `predict` returns.
    classes : ndarray or None
        None for a regressor.
    """
    if not hasattr(estimator, "predict"):
        raise TypeError(
            "The 'estimator' parameter must be a classifier or a regressor. Got "
            f"{shown(estimator)} instead."
        )
    names = ["predict"]
    if is_classifier(estimator):
        names = ["predict_proba", "decision_function", "predict"]
    method = next(name for name in names if hasattr(estimator, name))
    if cv is None:
        found = getattr(estimator, method)(X)
        classes = getattr(estimator, "classes_", None)
    else:
        found = cross_val_predict(estimator, X, y, cv=cv, groups=groups, method=method)
        classes = np.unique(y) if is_classifier(estimator) else None
    found = np.asarray(found)
    if method == "decision_function":
        if found.ndim == 1:
            return np.stack([expit(-found), expit(found)], axis=1), classes
        return softmax(found, axis=1), classes
    return found, classes


def compare_predictions(y_true, y_pred, classes, function):
    """Return the `Predictions` that the parameters of a function describe.

    Parameters
    ----------
    y_true : array-like, shape (n_samples,)
    y_pred : array-like, shape (n_samples, n_classes) or (n_samples,)
    classes : array-like of shape (n_classes,) or None
    function : str
        Its name, for errors.
    """
    true = check_targets(y_true, "y_true", function, one_column=True)
    y_pred = check_table(
        y_pred, "y_pred", dtype=None, ensure_2d=False, ensure_all_finite="allow-nan"
    )
    check_consistent_length(true, y_pred)
    kind = type_of_target(true, input_name="y_true")
    if y_pred.ndim == 2 and y_pred.shape[1] == 1:
        y_pred = y_pred[:, 0]
    is_missing = pd.isna(y_pred).reshape(len(true), -1).any(axis=1)
    if is_missing.all():
        raise ValueError(
            f"The 'y_pred' parameter of {function} must have a prediction of at least "
            "one image. All of its rows have NaN."
        )
    if y_pred.ndim == 2:
        return _compare_probabilities(true, y_pred, classes, function)
    if true.dtype.kind not in "biuf" and y_pred.dtype.kind == "f":
        raise ValueError(
            f"The 'y_pred' parameter of {function} must be labels, or probabilities "
            f"with a column for each class. Got one column of numbers for the labels "
            f"{true[:1].tolist()[0]!r}, ..."
        )
    known = np.flatnonzero(~is_missing)
    predicted = y_pred[known]
    one_true, one_predicted = true[:1].tolist()[0], predicted[:1].tolist()[0]
    if isinstance(one_true, str) != isinstance(one_predicted, str):
        raise ValueError(
            f"The 'y_pred' parameter of {function} must have labels of the type of "
            f"'y_true', such as {one_true!r}. Got {one_predicted!r}."
        )
    is_regression = kind == "continuous" or (
        predicted.dtype.kind == "f" and (predicted % 1 != 0).any()
    )
    return Predictions(known, true[known], predicted, None, None, is_regression)


def _compare_probabilities(true, y_pred, classes, function):
    classes = np.unique(true) if classes is None else np.asarray(classes)
    if len(classes) != y_pred.shape[1]:
        raise ValueError(
            f"The 'classes' parameter of {function} must have a label for each of the "
            f"{y_pred.shape[1]} columns of 'y_pred'. Got {len(classes)} labels."
        )
    if unknown := set(true.tolist()) - set(classes.tolist()):
        raise ValueError(
            f"The 'classes' parameter of {function} must have all labels of 'y_true'. "
            f"It lacks {sorted(unknown, key=str)[0]!r}."
        )
    if np.nanmin(y_pred, initial=0) < 0 or np.nanmax(y_pred, initial=0) > 1 + 1e-6:
        raise ValueError(
            f"The 'y_pred' parameter of {function} must be probabilities if it has "
            f"several columns. Got values from {np.nanmin(y_pred):.3g} to "
            f"{np.nanmax(y_pred):.3g}."
        )
    # An image that cannot be read may have a row of NaN.
    known = np.flatnonzero(~np.isnan(y_pred).any(axis=1))
    probabilities = y_pred[known].astype(np.float64)
    predicted = classes[probabilities.argmax(axis=1)]
    return Predictions(known, true[known], predicted, probabilities, classes, False)
