"""Word2Vec: word vectors from a column of texts."""

import os
import pathlib
import re

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from .._utils._address import check_local
from .._utils._callbacks import FitCallbacks, LearnedTransformer, with_callbacks
from .._utils._constraints import NOT_NEGATIVE, POSITIVE, POSITIVE_INT
from .._utils._parameter_errors import choice_error
from .._utils._plain_file import write_atomically
from .._utils._public_function import public_function
from ..training import LoopSettings, TrainingRun
from ._skip_gram import SkipGram, SkipGramData, negative_sampling_loss
from ._texts import TextTransformerMixin, as_codes, count_words
from ._word_vectors import WordVectors


class Word2Vec(TextTransformerMixin, LearnedTransformer):
    """Word vectors that are learned from texts, by skip-gram with negative sampling.

    Words that occur among the same words get similar vectors (Mikolov et al. 2013
    [1]_). `transform` returns the mean of the vectors of each text's words. For other
    averages, give the fitted estimator to `WordVectorFeatures`.

    Parameters
    ----------
    vector_size : int, default=100
        Number of dimensions.

    window : int, default=5
        Largest distance of two words that are learned together.

    negative : int, default=5
        Number of words that are drawn from noise for each pair.

    min_count : int, default=2
        Words that occur less often have no vector.

    subsample : float or None, default=1e-3
        Words with a relative frequency f are kept with a probability of
        ``sqrt(r) + r``, at most 1, where ``r = subsample / f``. None keeps all words.

    noise_exponent : float, default=0.75
        Words are drawn from noise with their frequency to this power.

    max_epochs : int, default=5
        Number of epochs.

    batch_size : int, default=1024
        Number of pairs in a step.

    learning_rate : float, default=1e-2
        Learning rate of Adam at the beginning; it falls to 0 along a cosine.

    lowercase : bool, default=True
        Whether texts are turned into lower case.

    tokenizer : callable or None, default=None
        As for `WordVectorFeatures`.

    random_state : int, RandomState instance or None, default=None
        Determines the first vectors, the order of the pairs, and the noise.

    verbose : int, default=0
        Above 0, show a progress bar.

    Attributes
    ----------
    vocabulary_ : dict of str to int
        The index of each word, the most frequent first.

    vectors_ : ndarray of float32, shape (n_words, vector_size)
        The vectors of the words.

    context_vectors_ : ndarray of float32, shape (n_words, vector_size)
        The vectors of the words as contexts of others.

    counts_ : ndarray of int, shape (n_words,)
        How often each word occurs in the training texts.

    history_ : DataFrame
        ``epoch``, ``train_loss`` and ``seconds`` of each epoch.

    n_features_in_ : int
        Always 1.

    Notes
    -----
    With scikit-learn 1.9 and newer, ``set_callbacks`` takes its callbacks, such as
    `sklearn.callback.ProgressBar`. The task of `fit` is its only phase, and the tasks
    of that are epochs. A callback whose ``on_fit_task_end`` returns True ends the fit.

    References
    ----------
    .. [1] T. Mikolov, I. Sutskever, K. Chen, G. Corrado and J. Dean, "Distributed
       representations of words and phrases and their compositionality", NeurIPS 2013.

    Examples
    --------
    >>> from skdeepfeat.text import Word2Vec
    >>> texts = ["the cat eats fish", "the dog eats meat", "a car needs fuel"] * 50
    >>> word2vec = Word2Vec(8, random_state=0).fit(texts)
    >>> word2vec.transform(["the cat", "fuel"]).shape
    (2, 8)
    """

    _parameter_constraints: dict = {
        **TextTransformerMixin._parameter_constraints,
        "vector_size": [POSITIVE_INT],
        "window": [POSITIVE_INT],
        "negative": [POSITIVE_INT],
        "min_count": [POSITIVE_INT],
        "subsample": [POSITIVE, None],
        "noise_exponent": [NOT_NEGATIVE],
        "max_epochs": [POSITIVE_INT],
        "batch_size": [POSITIVE_INT],
        "learning_rate": [POSITIVE],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        vector_size=100,
        *,
        window=5,
        negative=5,
        min_count=2,
        subsample=1e-3,
        noise_exponent=0.75,
        max_epochs=5,
        batch_size=1024,
        learning_rate=1e-2,
        lowercase=True,
        tokenizer=None,
        random_state=None,
        verbose=0,
    ):
        self.vector_size = vector_size
        self.window = window
        self.negative = negative
        self.min_count = min_count
        self.subsample = subsample
        self.noise_exponent = noise_exponent
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.lowercase = lowercase
        self.tokenizer = tokenizer
        self.random_state = random_state
        self.verbose = verbose

    @public_function
    @with_callbacks
    def fit(self, X, y=None):
        """Learn word vectors from texts.

        Parameters
        ----------
        X : array-like of str, shape (n_samples,) or (n_samples, 1)
            One text per row. Words of different rows are not learned together.
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
            If fewer than 2 words occur `min_count` times, or no two of them in one
            text.

        Warns
        -----
        RuntimeWarning
            If the training is interrupted. The vectors so far are kept.
        """
        self._validate_params()
        texts = self._count(self._words(X, reset=True))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        callbacks = FitCallbacks(self, 1, X, y)
        self._train(texts, seed, callbacks)
        callbacks.close()
        return self

    def _count(self, words):
        """Choose the vocabulary; return the known words of each text by number."""
        kept = count_words(words, lambda word, n: n >= self.min_count)
        vocabulary = {word: number for number, (word, _) in enumerate(kept)}
        texts = as_codes(words, vocabulary)
        if len(vocabulary) < 2 or max(map(len, texts)) < 2:
            raise ValueError(
                "X must have at least 2 different words that occur at least "
                f"min_count={self.min_count} times, and two of them in one text. Got "
                f"{len(vocabulary)} such words in {len(texts)} texts."
            )
        self.vocabulary_ = vocabulary
        self.counts_ = np.array([n for _, n in kept])
        return texts

    def _train(self, texts, seed, callbacks):
        model = SkipGram(len(self.vocabulary_), self.vector_size, seed)
        # Rare words have no gradient in most batches, and are then left alone.
        group = {"params": list(model.parameters()), "lr_scale": 1.0}
        optimizer = torch.optim.SparseAdam([group], lr=self.learning_rate)
        settings = LoopSettings.of(
            self,
            phase="word2vec",
            n_epochs=self.max_epochs,
            schedule="cosine",
            seed=seed,
        )
        data = SkipGramData(
            texts,
            self.window,
            self.negative,
            # Relative to the largest, as powers of large numbers are infinite.
            (self.counts_ / self.counts_[0]) ** self.noise_exponent,
            self._keep_probabilities(),
        )
        run = TrainingRun(
            model, optimizer, negative_sampling_loss, settings, torch.device("cpu")
        )

        def attributes():
            return {
                "vectors_": model.words.weight.detach().numpy().copy(),
                "context_vectors_": model.contexts.weight.detach().numpy().copy(),
                "history_": pd.DataFrame(
                    run.history, columns=["epoch", "train_loss", "seconds"]
                ),
            }

        self._learn(callbacks, run, data, np.arange(len(texts)), attributes)

    @public_function
    def transform(self, X):
        """Return the mean of the vectors of each text's words.

        Parameters
        ----------
        X : array-like of str, shape (n_samples,) or (n_samples, 1)
            The texts.

        Returns
        -------
        ndarray of float32, shape (n_samples, vector_size)
            Zeros for a text without any known word.
        """
        check_is_fitted(self)
        texts = as_codes(self._words(X), self.vocabulary_)
        means = [self.vectors_[text].sum(axis=0) / max(1, len(text)) for text in texts]
        return np.array(means, np.float32)

    @public_function
    def most_similar(self, positive, negative=(), n=10):
        """Return the words that are nearest to a sum of words.

        Parameters
        ----------
        positive : str or list of str
            Words that are added.
        negative : str or list of str, default=()
            Words that are subtracted, as man from king.
        n : int, default=10
            Number of words.

        Returns
        -------
        list of (str, float)
            Words and their cosine similarities, the nearest first. Words that were
            given are left out.

        Raises
        ------
        ValueError
            If a word has no vector.
        """
        check_is_fitted(self)
        return self.word_vectors_.most_similar(positive, negative, n)

    def save(self, path):
        """Write the vectors in word2vec's format.

        Parameters
        ----------
        path : path-like
            The extension selects the format: ``.txt`` and ``.vec`` are text, ``.bin``
            is binary. The file appears when it is complete.
        """
        check_is_fitted(self)
        check_local(path, "path")
        path = pathlib.Path(path)
        if path.suffix not in (".txt", ".vec", ".bin"):
            wanted = "a file with the ending .txt, .vec or .bin"
            raise choice_error("path", wanted, os.fspath(path))
        lines = [f"{len(self.vectors_)} {self.vectors_.shape[1]}".encode()]
        for word, vector in zip(self.vocabulary_, self.vectors_, strict=True):
            # White space would end the word.
            word = re.sub(r"\s", "_", word) or "_"
            numbers = " ".join(map(str, vector)).encode()
            if path.suffix == ".bin":
                numbers = vector.astype("<f4").tobytes()
            lines.append(word.encode(errors="replace") + b" " + numbers)
        write_atomically(path, b"\n".join([*lines, b""]))

    @property
    def word_vectors_(self):
        """The words and vectors, as `WordVectorFeatures` uses them."""
        return WordVectors(self.vocabulary_, self.vectors_)

    @property
    def _n_features_out(self):
        return self.vectors_.shape[1]

    def _keep_probabilities(self):
        if self.subsample is None:
            return np.ones(len(self.counts_))
        ratio = self.subsample * self.counts_.sum() / self.counts_
        return np.minimum(1.0, np.sqrt(ratio) + ratio)
