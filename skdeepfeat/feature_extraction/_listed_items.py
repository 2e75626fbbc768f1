"""Items of any kind in memory: texts, recordings, rows of a table."""

import copy
from collections.abc import Iterator, Mapping, Set

import numpy as np
import scipy.sparse
import torch

from .._utils._item_encoding import (
    NotEncodableError,
    decode_item,
    digest_item,
    encode_item,
)
from .._utils._item_source import ItemSource
from .._utils._parameter_errors import choice_error, first_line
from .._utils._shown import shown
from ..exceptions import BadItemError

_CHANGED = "it was changed while it was being used: its content differs"


class ListedItems(ItemSource):
    """Items of a sequence, known by their content or by a user's `key`.

    Parameters
    ----------
    items : sequence
    key : callable or None

    Attributes
    ----------
    unknown : list of int
        The items whose content is not known, once `digests` was called.
    """

    def __init__(self, items, key=None):
        self._items = items
        self._key = key
        self._expected = None
        self.unknown = []

    def __len__(self):
        return len(self._items)

    def digests(self, file_index=None, on_done=None, keeps=False):
        found, failures, self.unknown = [], {}, []
        for i, item in enumerate(self._items):
            digest = None
            try:
                digest = digest_item(encode_item(self._identity(item)))
            except BadItemError as error:
                failures[i] = error.at(i, self.describe(i))
            except NotEncodableError as error:
                if self._key is not None:
                    wanted = (
                        "a function that returns a str, bytes, number, array, tensor, "
                        f"or a list, tuple or dict of these. For index {i}, {error}"
                    )
                    raise choice_error(
                        "key", wanted, self._key, error=TypeError
                    ) from None
                self.unknown.append(i)
                digest = digest_item(f"unknown item {i}".encode())
            found.append(digest)
        self._expected = found
        return found, failures

    def _identity(self, item):
        if self._key is None:
            return item
        try:
            return self._key(item)
        except Exception as error:  # of the user's function
            raise BadItemError(
                f"key raised {type(error).__name__}: {first_line(error)}"
            ) from error

    def fitted(self, i, preprocessing, budget=None):
        return self.item(i)

    def item(self, i):
        """Return one item.

        Raises
        ------
        BadItemError
            If its content has changed since its digest was taken.
        """
        item = self._items[i]
        if self._key is not None or type(item) in (str, bytes, int, float):
            return item
        try:
            data = encode_item(item)
        except NotEncodableError:
            return item
        if self._expected is not None and digest_item(data) != self._expected[i]:
            raise BadItemError(_CHANGED, i, self.describe(i))
        return decode_item(data)  # a copy, which nobody else can change

    def describe(self, i):
        item = self._items[i]
        if isinstance(item, (str, bytes, int, float, type(None))):
            return shown(item, 40)
        name = type(item).__name__
        shape = getattr(item, "shape", None)
        return name if shape is None else f"{name} of shape {tuple(shape)}"

    def part(self, indices):
        part = copy.copy(self)
        part._items = [self._items[int(i)] for i in indices]
        if self._expected is not None:
            part._expected = [self._expected[int(i)] for i in indices]
        return part


def list_items(X):
    """Return the items of X as a sequence.

    Parameters
    ----------
    X : list, tuple, Series, array, tensor or frame
        A one-column frame, or an array of shape (n, 1), that holds objects stands for
        these. The items of another table are its rows, as arrays.

    Raises
    ------
    TypeError
        If X is not a collection.
    ValueError
        If X is empty.
    """
    _refuse(X)
    items = _items_of(X)
    if not len(items):
        raise ValueError(
            "X must have at least one item: found 0 sample(s), while a minimum of 1 "
            "is required."
        )
    return items


def _items_of(X):
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):
        if X.shape[1] == 1 and _are_objects(values := X[X.columns[0]].to_list()):
            return values
        return X.to_numpy()
    if isinstance(X, torch.Tensor):
        return X
    for name in ("to_list", "to_pylist"):  # pandas and polars; pyarrow
        if hasattr(X, name):
            return list(getattr(X, name)())
    if isinstance(X, np.ndarray):
        if X.dtype.kind in "OUST":
            X = X[:, 0] if X.ndim == 2 and X.shape[1] == 1 else X
            return X.tolist() if X.ndim == 1 else X
        return X
    if not hasattr(X, "__getitem__"):
        return _items_of(np.asarray(X))
    items = list(X)
    is_wrapped = all(type(item) in (list, tuple) and len(item) == 1 for item in items)
    if items and is_wrapped and _are_objects([item[0] for item in items]):
        return [item[0] for item in items]
    return items


def _are_objects(values):
    """Return whether values are not just numbers."""
    return not all(isinstance(one, (int, float, np.number, np.bool_)) for one in values)


def _refuse(X):
    """Raise TypeError, with what to write instead."""
    name = type(X).__name__
    if isinstance(X, (str, bytes)):
        advice = "X is a single item: use [X]"
    elif scipy.sparse.issparse(X):
        advice = "X is sparse: use X.toarray()"
    elif isinstance(X, Mapping):
        advice = "X is a mapping: use list(X.values()), or [X] if it is one item"
    elif isinstance(X, Set):
        advice = "X is a set, which has no order of rows: use sorted(X)"
    elif isinstance(X, Iterator):
        advice = "X can be iterated over only once: use list(X)"
    elif hasattr(X, "collect") and hasattr(X, "collect_schema"):
        advice = "X is not computed yet: use X.collect()"
    elif isinstance(X, (np.ndarray, torch.Tensor)) and X.ndim == 0:
        advice = "X is a single item: use [X]"
    elif not any(hasattr(X, one) for one in ("__getitem__", "columns", "__array__")):
        advice = "use a list, an array, or a column of a frame"
    else:
        return
    raise TypeError(f"X must be a collection of items; {advice}. Got {name} instead.")
