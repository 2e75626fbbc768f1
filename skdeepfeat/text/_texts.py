"""X of the text transformers: one text per row."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set

import numpy as np
import pandas as pd
from sklearn.utils.validation import validate_data

from .._utils._html import DocumentationLinkMixin
from .._utils._short_errors import ShortErrorsMixin
from .._utils._shown import shown

_WORD = re.compile(r"\w+(?:['’]\w+)*")


class TextTransformerMixin(ShortErrorsMixin, DocumentationLinkMixin):
    """Mixin class for transformers of one text per row.

    Subclasses have the parameters `tokenizer` and `lowercase`.
    """

    _parameter_constraints: dict = {
        "lowercase": ["boolean"],
        "tokenizer": [callable, None],
    }

    # skrub applies it to each of several columns.
    __single_column_transformer__ = True

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags

    def _words(self, X, reset=False):
        """Check X, and return a list of words for each text."""
        if hasattr(X, "columns"):
            validate_data(self, X, reset=reset, skip_check_array=True)
        elif reset:
            self.n_features_in_ = 1
            vars(self).pop("feature_names_in_", None)
        return tokenize(check_texts(X), self.tokenizer, self.lowercase)


def check_texts(X):
    """Return the texts of X as a list of str.

    Parameters
    ----------
    X : list, Series, array or one-column frame, shape (n_samples,) or (n_samples, 1)

    Raises
    ------
    TypeError
        If X is a single text, or an item is not a str; it names the index.
    ValueError
        If X has no text, or several columns.
    """
    if isinstance(X, (str, bytes)) or getattr(X, "ndim", 1) == 0:
        raise TypeError("X must be a collection of texts: use [X]. Got one text.")
    if isinstance(X, (Mapping, Set)):
        raise TypeError(
            "X must be a sequence of texts, one per row: use a list. Got "
            f"{type(X).__name__}."
        )
    if hasattr(X, "columns") and hasattr(X, "shape"):
        if X.shape[1] != 1:
            raise ValueError(
                "X must have one column, that of the texts: choose it with a "
                f"ColumnTransformer. Got {X.shape[1]} columns."
            )
        # Tables of pyarrow have arrays as `columns`. Of the type, because columns of a
        # pandas frame are attributes, too.
        X = X.column(0) if hasattr(type(X), "column") else X[X.columns[0]]
    for name in ("to_list", "to_pylist", "tolist"):  # pandas, polars; pyarrow; NumPy
        if hasattr(X, name):
            X = getattr(X, name)()
    if not hasattr(X, "__len__"):
        raise TypeError(
            f"X must be a collection of texts: use list(X). Got {type(X).__name__}."
        )
    texts = [
        item[0] if isinstance(item, (list, tuple, np.ndarray)) and len(item) == 1
        else item
        for item in X
    ]  # fmt: skip
    if not texts:
        raise ValueError(
            "X must have at least one text: found 0 sample(s), while a minimum "
            "of 1 is required."
        )
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            is_missing = np.ndim(text) == 0 and bool(pd.isna(text))
            advice = " Missing texts can be replaced by ''." if is_missing else ""
            raise TypeError(
                f"X must hold texts. Index {number} is {shown(text)}, of type "
                f"{type(text).__name__}.{advice}"
            )
    return texts


def count_words(texts, is_kept):
    """Return (word, number of occurrences) for some words, the most frequent first.

    Parameters
    ----------
    texts : list of (list of str)
    is_kept : callable
        ``is_kept(word, n_occurrences) -> bool``
    """
    counts = Counter(word for text in texts for word in text)
    kept = [(word, n) for word, n in counts.items() if is_kept(word, n)]
    # Alphabetically where counts are equal, so that the order of X has no effect.
    return sorted(kept, key=lambda item: (-item[1], item[0]))


def as_codes(texts, codes):
    """Return the numbers of the known words of each text."""
    return [np.array([codes[w] for w in text if w in codes], int) for text in texts]


def tokenize(texts, tokenizer, lowercase):
    """Return a list of words for each text."""
    split = tokenizer or _WORD.findall
    result = []
    for number, text in enumerate(texts):
        words = split(text.lower() if lowercase else text)
        if isinstance(words, Iterable) and not isinstance(words, (str, bytes)):
            words = list(words)  # of a generator, too
        if not isinstance(words, list) or not all(isinstance(w, str) for w in words):
            raise TypeError(
                "The 'tokenizer' parameter must return a list of str for each text. "
                f"For index {number}, it returned {shown(words)}."
            )
        result.append(words)
    return result
