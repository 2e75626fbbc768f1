"""Labels, groups and targets: one entry per image or text."""

import numpy as np
import pandas as pd

__all__ = ["check_column"]


def check_column(values, name):
    """Return labels, groups or numbers as an array, shape (n_samples,).

    Parameters
    ----------
    values : array-like, shape (n_samples,) or (n_samples, 1)
    name : str
        That of the parameter, for errors.

    Raises
    ------
    ValueError
        If they have another shape, or some are missing or infinite.
    """
    array = np.asarray(values)
    entries = array
    if isinstance(values, (list, tuple)):
        # numpy turns a missing value among strings into the string "nan".
        entries = np.array(values, dtype=object)
    if array.ndim == 2 and array.shape[1] == 1:
        array, entries = array[:, 0], entries[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{name} must be one-dimensional, with one entry per row of X. Got shape "
            f"{array.shape}."
        )
    missing = pd.isna(entries)
    if array.dtype.kind == "f":
        missing |= np.isinf(array)
    if missing.any():
        raise ValueError(
            f"{name} must not have missing values. Got one at index {missing.argmax()}."
        )
    return array
