"""Folds, their scores, and validation sets."""

import numpy as np
from sklearn.model_selection import check_cv, train_test_split

from ._shown import shown


def check_number_of_folds(caller, n_folds, y, classifies, groups=None):
    """Raise ValueError if there are too few images, or groups, for a number of folds.

    Parameters
    ----------
    caller : str
        The function or class whose 'cv' parameter is the number of folds.
    n_folds : int
    y : ndarray
    classifies : bool
        Whether the folds are stratified. Then the largest class needs at least
        `n_folds` images.
    groups : ndarray or None, default=None
        The group of each image. A group is never split between folds.
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


def split_into_folds(caller, cv, y, groups, classifies):
    """Return the folds of a parameter `cv`, as pairs of indices.

    Parameters
    ----------
    caller : str
        The function or class that has the parameter.
    cv : int, cross-validation generator or iterable
    y, groups : ndarray, ndarray or None
    classifies : bool

    Returns
    -------
    list of (ndarray of int, ndarray of int)
        At least one. None of them is empty.

    Raises
    ------
    ValueError
    """
    splitter = check_cv(cv, y, classifier=classifies)
    splits = [
        (_as_indices(train, len(y), caller), _as_indices(test, len(y), caller))
        for train, test in splitter.split(np.zeros((len(y), 1)), y, groups)
    ]
    if not splits or not all(len(part) for split in splits for part in split):
        raise ValueError(
            f"The 'cv' parameter of {caller} must give folds with images to train and "
            f"to test on. Got {shown(cv)} instead."
        )
    return splits


def _as_indices(part, n, caller):
    part = np.asarray(part)
    if len(part) and part.dtype.kind not in "biu":
        raise ValueError(
            f"The 'cv' parameter of {caller} must give integers or masks. Got an array "
            f"of {part.dtype} instead."
        )
    part = np.flatnonzero(part) if part.dtype == bool else part
    if len(part) and part.max() >= n:
        raise ValueError(
            f"The 'cv' parameter of {caller} must give indices of the {n} images. Got "
            f"the index {part.max()} instead."
        )
    return part


def split_rows(rows, fraction, random_state, advice, stratify=None):
    """Return the rows to train on, and those of the validation set, both sorted.

    Parameters
    ----------
    rows : ndarray of int
    fraction : float
        The parameter `validation_fraction`.
    random_state : int or RandomState
    advice : str
        What to do, for the error.
    stratify : ndarray or None, default=None
        The class of each row.

    Raises
    ------
    ValueError
        If a part would be empty, or have fewer rows than there are classes.
    """
    try:
        training, validation = train_test_split(
            rows, test_size=fraction, random_state=random_state, stratify=stratify
        )
    except ValueError as error:
        raise ValueError(
            f"The 'validation_fraction' parameter, {fraction}, does not split "
            f"{len(rows)} images into training and validation set ({error}). {advice}"
        ) from error
    return np.sort(training), np.sort(validation)


def standard_error(values):
    """Return the standard error of the mean of values; NaN for a single value."""
    if len(values) < 2:
        return np.nan
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))
