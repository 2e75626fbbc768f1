"""Which texts follow each other, and batches of them."""

import numpy as np
import pandas as pd
import torch

from .._utils._columns import check_column
from ._sentence_networks import PADDING


def document_codes(groups, n_texts):
    """Return a number for the document of each text.

    Parameters
    ----------
    groups : array-like of shape (n_texts,), or None
        None means one document.
    n_texts : int

    Returns
    -------
    ndarray of int, shape (n_texts,)

    Raises
    ------
    ValueError
        If `groups` has another length, or missing values.
    """
    if groups is None:
        return np.zeros(n_texts, int)
    return pd.factorize(check_column(groups, "groups", n_texts))[0]


def followers(texts, documents):
    """Return the next text of the same document for each text.

    Parameters
    ----------
    texts : list of ndarray of int
        The known words of each text. A text without any has no neighbors, and the
        texts before and after it do not follow each other.
    documents : ndarray of int, shape (n_texts,)
        Rows of other documents in between do not matter.

    Returns
    -------
    ndarray of int, shape (n_texts,)
        -1 if there is none.
    """
    following = np.full(len(texts), -1)
    order = np.argsort(documents, kind="stable")
    for first, second in zip(order[:-1], order[1:], strict=True):
        is_pair = documents[first] == documents[second]
        if is_pair and len(texts[first]) and len(texts[second]):
            following[first] = second
    return following


class TextTuples:
    """Rows of several texts each, as padded batches.

    Parameters
    ----------
    texts : list of ndarray of int
        The words of each text, from 1.
    members : ndarray of int, shape (n_samples, n_texts_each)
        Indices of texts; -1 is a text without words.
    """

    def __init__(self, texts, members):
        self._texts = [*texts, np.empty(0, int)]
        self._members = members
        self.targets = torch.zeros(len(members))
        self.weights = torch.ones(len(members))

    def __len__(self):
        return len(self._members)

    def batch(self, rows, rng, positions, n_total):
        """Return words, int64 of shape (n_rows, n_texts_each, n_words)."""
        members = self._members[rows]
        padded = pad([self._texts[i] for i in members.ravel()])
        return torch.from_numpy(padded.reshape(*members.shape, -1))


def pad(texts):
    """Return texts as one array, with padding at the end of the shorter ones."""
    longest = max(map(len, texts), default=0)
    result = np.full((len(texts), max(1, longest)), PADDING)
    for row, text in zip(result, texts, strict=True):
        row[: len(text)] = text
    return result
