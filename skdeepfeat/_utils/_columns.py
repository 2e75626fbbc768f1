"""Labels, groups, targets and features: one entry or row per image or text."""

import numpy as np
import pandas as pd
from sklearn.utils import check_array

from ._tensors import without_tensors


def check_column(values, name, n_rows=None, of="X"):
    """Return labels, groups or numbers as an array, shape (n_samples,).

    Parameters
    ----------
    values : array-like, shape (n_samples,) or (n_samples, 1)
    name : str
        That of the parameter, for errors.
    n_rows : int or None, default=None
        The number of samples, if it is known.
    of : str, default="X"
        The parameter that has the samples, for errors.

    Raises
    ------
    ValueError
        If they have another shape or number, or some are missing or infinite.
    """
    values = without_tensors(values, name)
    refuse_missing(values, name)
    array = np.asarray(values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional, with one entry per row of X. Got shape "
            f"{array.shape}."
        )
    if n_rows not in (None, len(array)):
        raise ValueError(
            f"{name} must have one entry per row of {of}. {of} has {n_rows} rows, "
            f"{name} {len(array)} entries."
        )
    if array.dtype.kind == "f":
        _raise_if_any(np.isinf(array), name)
    return array


def check_table(values, name, **options):
    """Return a table of numbers or labels as an array.

    Parameters
    ----------
    values : array-like
        Tensors are taken as well.
    name : str
        That of the parameter, for errors.
    **options : dict
        Of `sklearn.utils.check_array`.
    """
    return check_array(without_tensors(values, name), input_name=name, **options)


def given_together(**pair):
    """Return whether two parameters were given; one without the other is an error.

    Parameters
    ----------
    **pair : object
        The parameters by their names.
    """
    missing = [name for name, value in pair.items() if value is None]
    if len(missing) == 1:
        raise ValueError(
            f"{' and '.join(pair)} must be given together; {missing[0]} is missing."
        )
    return not missing


def refuse_missing(values, name):
    """Raise ValueError if a label or a number is missing.

    Parameters
    ----------
    values : array-like, shape (n_samples,) or (n_samples, n_outputs)
        Nothing is missing in a sparse matrix.
    name : str
        That of the parameter.
    """
    if isinstance(values, (list, tuple)):
        # numpy turns a missing value among strings into the string "nan".
        try:
            values = np.array(values, dtype=object)
        except ValueError:
            return  # arrays of several shapes, which are not a column
    missing = pd.isna(np.asarray(values))
    if isinstance(values, np.ma.MaskedArray):
        missing |= np.ma.getmaskarray(values)
    if missing.ndim == 2:
        missing = missing.any(axis=1)
    if missing.ndim == 1:
        _raise_if_any(missing, name)


def refuse_mixed(y, name, where=""):
    """Raise ValueError if labels cannot be compared with each other.

    Parameters
    ----------
    y : ndarray
    name : str
        That of the parameter.
    where : str, default=""
        What has the parameter, for the error, such as " of linear_probe".
    """
    try:
        np.unique(y)
    except TypeError:
        kinds = sorted({type(one).__name__ for one in y.ravel().tolist()})
        raise ValueError(
            f"The {name!r} parameter{where} must have labels of one type. Got "
            f"{', '.join(kinds)}."
        ) from None


def _raise_if_any(missing, name):
    if missing.any():
        raise ValueError(
            f"{name} must not have missing values. Got one at index {missing.argmax()}."
        )
