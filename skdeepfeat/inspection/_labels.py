"""Checks of labels and targets that several functions share."""

from sklearn.utils import check_array

from .._utils._columns import refuse_missing, refuse_mixed
from .._utils._tensors import without_tensors


def check_targets(y, name, function, *, one_column=False):
    """Return targets as an array, one-dimensional if they have one column.

    Parameters
    ----------
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
    name, function : str
        The parameter and the function that has it, for errors.
    one_column : bool, default=False
        Whether there must be one target for each image.

    Raises
    ------
    ValueError
        If targets are missing, infinite, or cannot be compared with each other, or have
        several columns where there must be one.
    """
    y = without_tensors(y, name)
    refuse_missing(y, name)
    y = check_array(y, ensure_2d=False, dtype=None, input_name=name)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if one_column and y.ndim > 1:
        raise ValueError(
            f"The {name!r} parameter of {function} must have one label or number for "
            f"each image. Got shape {y.shape}."
        )
    refuse_mixed(y, name, f" of {function}")
    return y
