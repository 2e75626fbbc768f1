"""y and sample weights, checked and as numbers."""

import dataclasses
from collections.abc import Iterator, Mapping, Set

import numpy as np
import torch
from sklearn.utils import check_array
from sklearn.utils.validation import _check_sample_weight, check_consistent_length

from .._utils._columns import refuse_missing, refuse_mixed
from .._utils._shown import shown
from .._utils._tensors import without_tensors


@dataclasses.dataclass(frozen=True)
class Targets:
    """The targets of a fit as numbers.

    Attributes
    ----------
    values : ndarray
        Class numbers (n_samples,), or floats (n_samples, n_outputs).
    n_outputs : int
    task : {"single", "multilabel", "regression"}
    classes : ndarray or None
        The labels that class numbers stand for.
    """

    values: np.ndarray
    n_outputs: int
    task: str
    classes: np.ndarray | None = None

    def take(self, rows):
        """Return the targets of some images."""
        return dataclasses.replace(self, values=self.values[rows])

    def tensor(self):
        """Return the values in the form that losses take."""
        dtype = torch.int64 if self.task == "single" else torch.float32
        return torch.as_tensor(self.values).to(dtype)


def checked_weights(sample_weight, y):
    """Return sample weights as floats, of the length of y."""
    weight = without_tensors(sample_weight, "sample_weight")
    return _check_sample_weight(weight, y, dtype=np.float64, ensure_non_negative=True)


def checked_y(estimator, y, X, name="y", dtype=None):
    """Return y as an array or a sparse matrix, finite and of the length of X."""
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires {name} to be passed, but the target "
            f"{name} is None."
        )
    y = without_tensors(y, name)
    _refuse_unordered(y, name)
    _refuse_lists_of_labels(y, name)
    refuse_missing(y, name)
    y = check_array(
        y, accept_sparse="csr", ensure_2d=False, dtype=dtype, input_name=name
    )
    check_consistent_length(X, y)
    if y.dtype == object:
        refuse_mixed(y, name)
    return y


def _refuse_unordered(y, name):
    """Raise TypeError, with what to write instead, if y has no order of rows."""
    if isinstance(y, Mapping):
        advice = "it is a mapping: use list(y.values())"
    elif isinstance(y, Set):
        advice = "it is a set, which has no order of rows"
    elif isinstance(y, Iterator):
        advice = "it can be iterated over only once: use list(y)"
    else:
        return
    raise TypeError(
        f"{name} must be a list, an array or a column with one entry per row of X; "
        f"{advice}. Got {type(y).__name__} instead."
    )


def _refuse_lists_of_labels(y, name):
    """Raise ValueError if y holds a list or a set of labels for each image."""
    is_list = isinstance(y, (list, tuple))
    if not is_list and not (getattr(y, "ndim", 0) == 1 and y.dtype == object):
        return
    lists = [one for one in y if isinstance(one, (list, tuple, Set))]
    # A list of lists of equal lengths is an indicator matrix, or has several targets.
    is_matrix = is_list and len({len(one) for one in lists}) == 1
    if not lists or (is_matrix and not any(isinstance(one, Set) for one in lists)):
        return
    raise ValueError(
        f"{name} must have one entry per image, or be a matrix with a column for each "
        "label. For lists of labels, use "
        "sklearn.preprocessing.MultiLabelBinarizer().fit_transform(y). Got "
        f"{shown(lists[0])} instead."
    )
