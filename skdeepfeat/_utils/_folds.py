"""The number of folds, and the error of their scores."""

import numpy as np


def check_number_of_folds(caller, n_folds, y, classifies, groups=None):
    """Raise ValueError if there are fewer images than folds, in words about both.

    Parameters
    ----------
    caller : str
        The function or class whose parameter 'cv' is the number.
    n_folds : int
    y : ndarray
    classifies : bool
        Whether folds hold images of each class, as far as there are enough.
    groups : ndarray or None, default=None
        What folds do not split.
    """
    largest, what = len(y), "the number of images"
    if groups is not None:
        largest, what = len(np.unique(groups)), "the number of groups"
    elif classifies and y.ndim == 1:
        largest = int(np.unique(y, return_counts=True)[1].max())
        what = "the number of images of the largest class"
    if n_folds > largest:
        raise ValueError(
            f"The 'cv' parameter of {caller} must be at most {what}, which is "
            f"{largest}. Got {n_folds} instead. Use fewer folds or more images."
        )


def standard_error(values):
    """Return the standard error of the mean of values; NaN for one."""
    if len(values) < 2:
        return np.nan
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))
