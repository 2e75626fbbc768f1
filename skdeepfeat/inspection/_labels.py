"""Checks of labels and targets that several functions share."""

import numpy as np
from sklearn.utils import check_array

from .._utils._tensors import without_tensors

__all__ = ["check_targets"]


def check_targets(y, name, function):
    """Return targets as an array, one-dimensional if they have one column.

    Parameters
    ----------
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
    name, function : str
        The parameter and the function that has it, for errors.

    Raises
    ------
    ValueError
        If targets are missing, infinite, or cannot be compared with each other.
    """
    y = without_tensors(y, name)
    y = check_array(y, ensure_2d=False, dtype=None, input_name=name)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    try:
        np.unique(y)
    except TypeError as error:
        kinds = sorted({type(one).__name__ for one in y.ravel().tolist()})
        raise ValueError(
            f"The {name!r} parameter of {function} must have labels of one type. Got "
            f"{', '.join(kinds)}."
        ) from error
    return y
