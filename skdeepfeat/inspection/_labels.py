"""Checks of labels and targets that several functions share."""

from sklearn.utils import check_array

from .._utils._columns import refuse_missing, refuse_mixed
from .._utils._tensors import without_tensors


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
    refuse_missing(y, name)
    y = check_array(y, ensure_2d=False, dtype=None, input_name=name)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    refuse_mixed(y, name, f" of {function}")
    return y
