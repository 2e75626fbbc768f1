"""SentenceEncoder: rows of texts that know which texts follow each other."""

import copy

import numpy as np
import pandas as pd
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._utils._callbacks import FitCallbacks, LearnedTransformer, with_callbacks
from .._utils._constraints import AT_LEAST_2, POSITIVE, POSITIVE_INT
from .._utils._device import compute_context, free_device_memory, resolve_device
from .._utils._forks import undisturbed_by_forks
from .._utils._public_function import public_function
from .._utils._random import seeded
from ..training import (
    PAIR_LOSSES,
    LoopSettings,
    LossOfPairs,
    TrainingRun,
    make_optimizer,
)
from ._sentence_networks import ENCODERS, PADDING, NeighborDecoder, SentencePairNetwork
from ._sentence_pairs import TextTuples, document_codes, followers, pad
from ._texts import as_codes, count_words
from ._vectors_parameter import VectorsParameterMixin
from ._word_vectors import WordVectors, load_word_vectors

# The word vectors that are learned along with the network.
_LEARNED = "learned"

# Those that need no second network.
_METHODS = {name for name, one in PAIR_LOSSES.items() if not one.has_target}


# max_epochs="auto": enough steps for a few hundred texts, few epochs for a million.
_N_STEPS = 2000
_AUTO_EPOCHS = (3, 100)

# As in the paper: the softmax over more words takes most of the time.
_N_PREDICTED = 20_000

# Texts that go through the network at once outside of training.
_N_AT_ONCE = 256


class SentenceEncoder(VectorsParameterMixin, LearnedTransformer):
    """Features of texts, learned from which sentences follow each other.

    Sentences that follow each other are about the same things. `fit` trains a small
    network on word vectors, so that neighbors get similar embeddings and other
    sentences different ones (Logeswaran and Lee 2018 [1]_). No labels are needed. With
    ``decode=True``, the network learns to write the sentences before and after each one
    instead: the skip-thoughts of Kiros et al. (2015) [2]_, which take longer to train.

    Parameters
    ----------
    vectors : str, path-like, mapping or fitted Word2Vec, default="glove-50d"
        The word vectors, as for `WordVectorFeatures`. They are not changed. With
        ``"learned"``, they are learned from scratch along with the network.

    encoder : {"gru", "mean"}, default="gru"
        The network. ``"gru"`` reads the words in their order and averages its states.
        ``"mean"`` is a dense layer on the mean of the word vectors, which takes less
        time.

    n_components : int, default=128
        Number of features.

    method : {"simclr", "vicreg", "barlow", "align_uniform"}, default="simclr"
        How pairs are compared; see `SelfSupervisedExtractor`.

    decode : bool, default=False
        Whether to predict the words of the neighbors, instead of comparing pairs.
        `method` is then not used.

    vector_size : int, default=100
        Number of dimensions of learned word vectors.

    min_count : int, default=2
        Words that occur less often get no learned vector.

    max_length : int, default=100
        Number of words that are read of each text. The others are ignored.

    max_epochs : int or "auto", default="auto"
        Number of epochs. ``"auto"`` aims at about 2,000 steps, with at least 3 and at
        most 100 epochs.

    batch_size : int, default=128
        Number of pairs in a step, at least 2. Each text is compared with the others of
        its batch.

    learning_rate : float, default=2e-3
        Highest learning rate. It follows a one-cycle schedule.

    lowercase : bool, default=True
        Whether texts are turned into lower case.

    tokenizer : callable or None, default=None
        As for `WordVectorFeatures`.

    on_missing : {"zero", "nan", "raise"}, default="zero"
        What `transform` returns for a text without any known word: zeros, NaN, or an
        error. Unknown words of other texts are skipped.

    device : str or torch.device, default="auto"
        Where to train. ``"auto"`` selects the first of cuda, mps and xpu that is
        available, and the CPU otherwise. `transform` runs on the CPU.

    random_state : int, RandomState instance or None, default=None
        Determines the first weights and the order of the pairs.

    verbose : int, default=0
        Above 0, show a progress bar.

    Attributes
    ----------
    encoder_ : torch.nn.Module
        The trained network, on the CPU.

    n_pairs_ : int
        Number of pairs of texts that follow each other.

    history_ : DataFrame
        ``epoch``, ``train_loss``, ``learning_rate`` and ``seconds`` of each epoch.

    unknown_fraction_ : float
        Fraction of the words of the training texts that have no vector.

    scale_ : float
        The factor that word vectors are multiplied by.

    vocabulary_ : dict of str to int, or None
        With ``vectors="learned"``, the index of each word.

    vectors_ : ndarray of float32, shape (n_words, vector_size), or None
        With ``vectors="learned"``, the vectors of the words.

    n_features_in_ : int
        Always 1.

    feature_names_in_ : ndarray of str, shape (1,)
        The name of the column, if X was a data frame.

    See Also
    --------
    WordVectorFeatures : Averages of word vectors; nothing is trained.
    Word2Vec : Learns word vectors.

    Notes
    -----
    `groups` is metadata: inside a Pipeline or a search, request it with
    ``set_fit_request(groups=True)``. A cross-validation that shuffles rows makes
    neighbors of texts that were not neighbors. Use `GroupKFold`, or fit the encoder
    once on all texts, because it needs no labels.

    With scikit-learn 1.9 and newer, ``set_callbacks`` takes its callbacks, such as
    `sklearn.callback.ProgressBar`. The task of `fit` is its only phase, and the tasks
    of that are epochs. A callback whose ``on_fit_task_end`` returns True ends the fit.

    References
    ----------
    .. [1] L. Logeswaran and H. Lee, "An efficient framework for learning sentence
       representations", ICLR 2018.
    .. [2] R. Kiros et al., "Skip-thought vectors", NeurIPS 2015.

    Examples
    --------
    >>> from skdeepfeat.text import SentenceEncoder
    >>> story = ["The cat sleeps.", "It dreams of fish.", "The fish is far away."]
    >>> encoder = SentenceEncoder("learned", min_count=1, max_epochs=2, random_state=0)
    >>> encoder.fit_transform(story).shape
    (3, 128)
    """

    _parameter_constraints: dict = {
        **VectorsParameterMixin._parameter_constraints,
        "encoder": [StrOptions(set(ENCODERS))],
        "n_components": [POSITIVE_INT],
        "method": [StrOptions(_METHODS)],
        "decode": ["boolean"],
        "vector_size": [POSITIVE_INT],
        "min_count": [POSITIVE_INT],
        "max_length": [POSITIVE_INT],
        "max_epochs": [StrOptions({"auto"}), POSITIVE_INT],
        "batch_size": [AT_LEAST_2],
        "learning_rate": [POSITIVE],
        "device": [str, torch.device],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        vectors="glove-50d",
        *,
        encoder="gru",
        n_components=128,
        method="simclr",
        decode=False,
        vector_size=100,
        min_count=2,
        max_length=100,
        max_epochs="auto",
        batch_size=128,
        learning_rate=2e-3,
        lowercase=True,
        tokenizer=None,
        on_missing="zero",
        device="auto",
        random_state=None,
        verbose=0,
    ):
        self.vectors = vectors
        self.encoder = encoder
        self.n_components = n_components
        self.method = method
        self.decode = decode
        self.vector_size = vector_size
        self.min_count = min_count
        self.max_length = max_length
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.lowercase = lowercase
        self.tokenizer = tokenizer
        self.on_missing = on_missing
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @public_function
    @with_callbacks
    def fit(self, X, y=None, *, groups=None):
        """Train on texts that follow each other.

        Parameters
        ----------
        X : array-like of str, shape (n_samples,) or (n_samples, 1)
            Sentences or paragraphs in reading order, one per row.
        y : None
            Ignored.
        groups : array-like, shape (n_samples,), default=None
            The document of each row. Texts of different documents do not follow each
            other. The rows of a document are taken in the order of X, even if other
            rows are between them. None means that X is one document.

        Returns
        -------
        self
            The fitted estimator.

        Raises
        ------
        TypeError
            If an item of X is not a str.
        ValueError
            If fewer than 2 pairs of texts follow each other. A text without any known
            word is not part of a pair.
        TrainingDivergedError
            If the loss is NaN or infinite. The estimator then has the weights of the
            last good epoch.

        Warns
        -----
        UserWarning
            If more than half of the words have no vector.
        RuntimeWarning
            If the training is interrupted. The estimator then has the weights so far.
        """
        self._validate_params()
        device = resolve_device(self.device)
        words = self._words(X, reset=True)
        documents = document_codes(groups, len(words))
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        is_learned = isinstance(self.vectors, str) and self.vectors == _LEARNED
        given = None if is_learned else load_word_vectors(self.vectors, [_LEARNED])

        def is_kept(word, n):
            return n >= self.min_count if given is None else word in given.index

        vocabulary = [word for word, _ in count_words(words, is_kept)]
        codes = {word: code for code, word in enumerate(vocabulary, 1)}
        texts = [text[: self.max_length] for text in as_codes(words, codes)]
        following = followers(texts, documents)
        self._check_pairs(following, texts, documents)
        self._count_unknown(words, codes)
        with seeded(seed):
            network = self._make_network(vocabulary, given)
        self.vocabulary_ = self.vectors_ = None
        if is_learned:
            self.vocabulary_ = {word: row for row, word in enumerate(vocabulary)}
        callbacks = FitCallbacks(self, 1, X, y)
        try:
            self._train(network, texts, following, device, seed, callbacks)
        finally:
            free_device_memory(device)
        callbacks.close()
        return self

    def _check_pairs(self, following, texts, documents):
        self.n_pairs_ = int((following >= 0).sum())
        if self.n_pairs_ >= 2:
            return
        n_empty = sum(not len(text) for text in texts)
        raise ValueError(
            "X must have at least 2 pairs of texts that follow each other in a "
            "document, in reading order: one sentence or paragraph per row, and "
            f"groups that name the document of each row. Got {self.n_pairs_} pair(s) "
            f"in {len(texts)} texts, {n_empty} of them without a known word, of "
            f"{documents.max() + 1} document(s)."
        )

    def _make_network(self, vocabulary, given):
        """Return the network that is trained, with its word vectors."""
        if given is None:
            self.scale_ = 1.0
            embedding = nn.Embedding(
                len(vocabulary) + 1, self.vector_size, padding_idx=0
            )
        else:
            matrix = given.rows([given.index[word] for word in vocabulary])
            # Such that the mean square of the numbers is 1, whatever the vectors'.
            root = float(np.sqrt(np.mean(matrix**2)))
            self.scale_ = 1 / root if root else 1.0
            rows = np.vstack([np.zeros_like(matrix[:1]), matrix]) * self.scale_
            embedding = nn.Embedding.from_pretrained(
                torch.from_numpy(rows.astype(np.float32)), padding_idx=0
            )
        encoder = ENCODERS[self.encoder](embedding.embedding_dim, self.n_components)
        if self.decode:
            n_predicted = min(len(vocabulary), _N_PREDICTED)
            return NeighborDecoder(embedding, encoder, self.n_components, n_predicted)
        return SentencePairNetwork(embedding, encoder, self.n_components)

    def _train(self, network, texts, following, device, seed, callbacks):
        """Train the network, and record its epochs."""
        first = np.flatnonzero(following >= 0)
        pairs = np.column_stack([first, following[first]])
        if self.decode:
            preceding = np.full(len(texts), -1)
            preceding[pairs[:, 1]] = pairs[:, 0]
            members = np.column_stack([preceding, np.arange(len(texts)), following])
            members = members[(preceding >= 0) | (following >= 0)]
            loss = _own_loss
        else:
            members, loss = pairs, LossOfPairs(PAIR_LOSSES[self.method])
        network.to(device)
        trained = [
            (name, one) for name, one in network.named_parameters() if one.requires_grad
        ]
        run = TrainingRun(
            network,
            make_optimizer("adamw", [trained], learning_rate=self.learning_rate),
            loss,
            LoopSettings.one_cycle(
                self, len(members), _N_STEPS, _AUTO_EPOCHS,
                phase="sentences", max_grad_norm=1.0, seed=seed,
            ),
            device,
        )  # fmt: skip

        def attributes():
            columns = ["epoch", "train_loss", "learning_rate", "seconds"]
            encoder = copy.deepcopy(network.encoder).cpu().eval().requires_grad_(False)
            learned = {
                "encoder_": encoder,
                "history_": pd.DataFrame(run.history, columns=columns),
            }
            if self.vocabulary_ is not None:
                vectors = network.words.weight.detach().cpu().numpy()
                learned["vectors_"] = vectors[1:].copy()
            return learned

        data = TextTuples(texts, members)
        self._learn(callbacks, run, data, np.arange(len(texts)), attributes)

    @public_function
    def transform(self, X):
        """Return the features of texts.

        Parameters
        ----------
        X : array-like of str, shape (n_samples,) or (n_samples, 1)
            The texts.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_components)
            Row i belongs to text i. It does not depend on the other texts, except by
            rounding.

        Raises
        ------
        ValueError
            With ``on_missing="raise"``, if a text has no known word.
        """
        check_is_fitted(self)
        if self.vectors_ is None:
            vectors = self._load_again(self.encoder_.n_inputs)
        else:
            vectors = WordVectors(self.vocabulary_, self.vectors_)
        known = vectors.known(self._words(X))
        known = [words[: self.max_length] for words in known]
        return self._rows_of(known, lambda known: self._encode(known, vectors))

    @undisturbed_by_forks()
    def _encode(self, known, vectors):
        """Return the rows of texts, all of which have known words."""
        matrix, places = vectors.look_up(known)
        matrix = np.vstack([np.zeros_like(matrix[:1]), matrix * self.scale_])
        matrix = matrix.astype(np.float32)
        texts = [[1 + place for place in text] for text in places]
        rows = np.empty((len(texts), self._n_features_out), np.float32)
        # Texts of similar length together have little padding.
        order = np.argsort([len(text) for text in texts], kind="stable")
        with compute_context(torch.device("cpu"), "float32"):
            for start in range(0, len(order), _N_AT_ONCE):
                part = order[start : start + _N_AT_ONCE]
                padded = pad([texts[i] for i in part])
                rows[part] = self.encoder_(
                    torch.from_numpy(matrix[padded]),
                    torch.from_numpy((padded != PADDING).astype(np.float32)),
                ).numpy()
        return rows

    @property
    def _n_features_out(self):
        return self.encoder_.n_outputs


def _own_loss(outputs, targets):
    """Return the outputs, which are the loss that the network computes."""
    return outputs
