"""What estimators over given word vectors share."""

import os
from collections import Counter
from collections.abc import Mapping

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import StrOptions

from .._utils._address import shown_addresses
from .._utils._parameter_errors import choice_error
from .._utils._warn import warn
from ._texts import TextTransformerMixin
from ._word2vec import Word2Vec
from ._word_vectors import load_word_vectors

# More unknown words than this are a sign of other vectors or another language.
_LARGE_FRACTION = 0.5


class VectorsParameterMixin(TextTransformerMixin):
    """Mixin class for estimators with the parameters `vectors` and `on_missing`."""

    _parameter_constraints: dict = {
        **TextTransformerMixin._parameter_constraints,
        "vectors": [str, os.PathLike, Mapping, Word2Vec, FrozenEstimator],
        "on_missing": [StrOptions({"zero", "nan", "raise"})],
    }

    def get_params(self, deep=True):
        """Return the parameters of this estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the parameters of parameters that are estimators.

        Returns
        -------
        params : dict
            A fitted `Word2Vec` is returned in a `FrozenEstimator`, which `clone` does
            not unfit.
        """
        params = shown_addresses(super().get_params(deep=deep))
        if isinstance(self.vectors, Word2Vec):
            params["vectors"] = FrozenEstimator(self.vectors)
        return params

    def _load_again(self, n_dimensions):
        """Return the word vectors, which may have changed since the fit."""
        vectors = load_word_vectors(self.vectors)
        if vectors.matrix.shape[1] != n_dimensions:
            raise choice_error(
                "vectors",
                f"those of the fit, with {n_dimensions} numbers each, until it is "
                "fitted again",
                f"vectors of {vectors.matrix.shape[1]} numbers",
            )
        return vectors

    def _count_unknown(self, words, index):
        """Set `unknown_fraction_`, and warn if it is large."""
        missing = Counter(word for text in words for word in text if word not in index)
        n_words = sum(map(len, words))
        self.unknown_fraction_ = missing.total() / n_words if n_words else 0.0
        if self.unknown_fraction_ > _LARGE_FRACTION:
            warn(
                f"{self.unknown_fraction_:.0%} of the words of X have no vector, such "
                f"as {', '.join(word for word, _ in missing.most_common(5))}. Check "
                "'lowercase' and 'tokenizer', or choose other 'vectors'.",
                UserWarning,
            )

    def _rows_of(self, known, compute):
        """Return features of texts, those without known words as `on_missing` says.

        Parameters
        ----------
        known : list of list
            The known words of each text.
        compute : callable
            ``compute(known) -> ndarray`` of texts that all have known words.

        Returns
        -------
        ndarray of float32, shape (n_texts, n_features)
        """
        result = np.zeros((len(known), self._n_features_out), np.float32)
        is_missing = np.array([not words for words in known])
        if is_missing.any():
            if self.on_missing == "raise":
                raise ValueError(
                    f"Index {int(is_missing.argmax())} of X has no word with a vector "
                    f"({is_missing.sum()} of {len(known)} texts have none). Choose "
                    "on_missing='zero' or 'nan', or other 'vectors'."
                )
            if self.on_missing == "nan":
                result[is_missing] = np.nan
        if not is_missing.all():
            result[~is_missing] = compute([words for words in known if words])
        return result
