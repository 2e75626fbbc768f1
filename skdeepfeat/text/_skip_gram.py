"""Skip-gram with negative sampling: the model, its loss and its samples."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class SkipGram(nn.Module):
    """Vectors of words, and of words as contexts.

    Source: Mikolov et al., "Distributed representations of words and phrases and their
    compositionality", NeurIPS 2013.

    Parameters
    ----------
    n_words, vector_size : int
    seed : int
    """

    def __init__(self, n_words, vector_size, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        # Initialized as in word2vec: small word vectors, and contexts of zero.
        first = torch.rand(n_words, vector_size, generator=generator) - 0.5
        self.words = nn.Embedding.from_pretrained(
            first / vector_size, freeze=False, sparse=True
        )
        self.contexts = nn.Embedding.from_pretrained(
            torch.zeros(n_words, vector_size), freeze=False, sparse=True
        )

    def forward(self, samples):
        """Return the dot products of words with contexts.

        Parameters
        ----------
        samples : Tensor of int64, shape (n_samples, 2 + n_negative)
            A word, a context of it, and words drawn from noise.

        Returns
        -------
        Tensor, shape (n_samples, 1 + n_negative)
        """
        words = self.words(samples[:, 0])
        return torch.einsum("nd,ncd->nc", words, self.contexts(samples[:, 1:]))


def negative_sampling_loss(outputs, targets):
    """Return -log s(u'v) - sum log s(-u'v_k) of each sample; no targets are used."""
    return F.softplus(-outputs[:, 0]) + F.softplus(outputs[:, 1:]).sum(1)


class SkipGramData:
    """Words with one context each, drawn anew in each epoch.

    A context at distance d is drawn with a probability that falls linearly with d, as
    word2vec's random windows have it. Frequent words are drawn less often, and count
    less, by word2vec's rule for leaving them out.

    Parameters
    ----------
    texts : list of ndarray of int
        The words of each text.
    window, n_negative : int
    noise : ndarray of float, shape (n_words,)
        Probabilities of the words that are drawn as noise.
    keep : ndarray of float, shape (n_words,)
        Probability that a word is not left out.
    """

    def __init__(self, texts, window, n_negative, noise, keep):
        # A word alone has no context.
        texts = [text for text in texts if len(text) > 1]
        self._tokens = np.concatenate(texts)
        lengths = np.array([len(text) for text in texts])
        ends = lengths.cumsum()
        self._ends = np.repeat(ends, lengths)
        self._starts = np.repeat(ends - lengths, lengths)
        # No context is farther away than the length of the longest text.
        distances = np.arange(1, min(window, lengths.max() - 1) + 1)
        self._offsets = np.concatenate([-distances, distances])
        self._offset_weights = np.tile(window + 1.0 - distances, 2)
        self._n_negative = n_negative
        self._noise = noise.cumsum() / noise.sum()
        self._keep = keep
        # As many contexts as random windows have on average.
        self._n_contexts = len(distances) + 1
        weights = np.repeat(keep[self._tokens], self._n_contexts)
        self.weights = torch.from_numpy((weights / weights.mean()).astype(np.float32))
        self.targets = torch.zeros(len(self))

    def __len__(self):
        return len(self._tokens) * self._n_contexts

    def batch(self, rows, rng, positions, n_total):
        """Return samples, as `SkipGram` takes them."""
        places = rows // self._n_contexts
        candidates = places[:, None] + self._offsets
        is_valid = (candidates >= self._starts[places, None]) & (
            candidates < self._ends[places, None]
        )
        tokens = self._tokens[np.where(is_valid, candidates, 0)]
        weights = (self._offset_weights * self._keep[tokens] * is_valid).cumsum(axis=1)
        draws = rng.random(len(rows)) * weights[:, -1]
        chosen = (weights <= draws[:, None]).sum(axis=1)
        contexts = tokens[np.arange(len(rows)), chosen]
        noise = np.searchsorted(
            self._noise, rng.random((len(rows), self._n_negative)), side="right"
        ).clip(max=len(self._noise) - 1)
        samples = np.column_stack([self._tokens[places], contexts, noise])
        return torch.from_numpy(samples)
