"""The networks of SentenceEncoder: from words to one row, and what trains them."""

import torch
from torch import nn

# A word of no text. Shorter texts of a batch end with it.
PADDING = 0


class MeanEncoder(nn.Module):
    """A dense layer over the mean of the word vectors."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.n_inputs, self.n_outputs = n_inputs, n_outputs
        self.dense = nn.Linear(n_inputs, n_outputs)

    def forward(self, vectors, is_word):
        totals = (vectors * is_word[..., None]).sum(1)
        return self.dense(totals / is_word.sum(1, keepdim=True).clamp(min=1))


class GRUEncoder(nn.Module):
    """The mean of the states of a GRU, after each word."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.n_inputs, self.n_outputs = n_inputs, n_outputs
        self.gru = nn.GRU(n_inputs, n_outputs, batch_first=True)

    def forward(self, vectors, is_word):
        # Padding is at the end, so the states before it do not depend on it.
        states, _ = self.gru(vectors)
        totals = (states * is_word[..., None]).sum(1)
        return totals / is_word.sum(1, keepdim=True).clamp(min=1)


# Each is called with word vectors (n, n_words, n_inputs) and which of them are words,
# float32 of shape (n, n_words), and returns (n, n_outputs).
ENCODERS = {"mean": MeanEncoder, "gru": GRUEncoder}


class SentencePairNetwork(nn.Module):
    """Pairs of texts (n, 2, n_words) in, embeddings (n, 2, n_components) out.

    Parameters
    ----------
    words : Embedding
        Row 0 is the padding.
    encoder : Module
        See `ENCODERS`.
    n_components : int
        Of the encoder.
    """

    def __init__(self, words, encoder, n_components):
        super().__init__()
        self.words = words
        self.encoder = encoder
        # Thrown away after training, as for images: the encoder's output keeps what the
        # loss wants to be rid of (Chen et al. 2020).
        self.projector = nn.Sequential(
            nn.Linear(n_components, n_components, bias=False),
            nn.BatchNorm1d(n_components),
            nn.ReLU(inplace=True),
            nn.Linear(n_components, n_components),
        )

    def forward(self, pairs):
        texts = pairs.flatten(0, 1)
        codes = self.encoder(self.words(texts), (texts != PADDING).float())
        return self.projector(codes).unflatten(0, (len(pairs), 2))


class NeighborDecoder(nn.Module):
    """Texts with their neighbors (n, 3, n_words) in, the loss of each (n,) out.

    The three are the text before, the text, and the text after. Two GRUs predict the
    neighbors word by word from the code of the text in the middle. A neighbor that is
    all padding is not predicted.

    Source: Kiros et al., "Skip-thought vectors", NeurIPS 2015. The code is added to the
    input of each step, which is simpler than the paper's gates and serves the same end.

    Parameters
    ----------
    words, encoder, n_components
        As for `SentencePairNetwork`.
    n_predicted : int
        The words 1 to n_predicted can be predicted. Others are predicted as one and the
        same unknown word.
    """

    def __init__(self, words, encoder, n_components, n_predicted):
        super().__init__()
        self.words = words
        self.encoder = encoder
        n_inputs = words.embedding_dim + n_components
        self.before = nn.GRU(n_inputs, n_components, batch_first=True)
        self.after = nn.GRU(n_inputs, n_components, batch_first=True)
        # The end of a text is predicted as 0.
        self.unknown = n_predicted + 1
        self.to_words = nn.Linear(n_components, n_predicted + 2)

    def forward(self, triples):
        before, text, after = triples.unbind(1)
        codes = self.encoder(self.words(text), (text != PADDING).float())
        return self._loss(self.before, codes, before) + self._loss(
            self.after, codes, after
        )

    def _loss(self, gru, codes, neighbor):
        """Return -log P(neighbor | code), the mean of its words and its end."""
        vectors = self.words(neighbor)
        # The first word is predicted from the code alone.
        earlier = torch.cat([torch.zeros_like(vectors[:, :1]), vectors], dim=1)
        codes = codes[:, None].expand(-1, earlier.shape[1], -1)
        states, _ = gru(torch.cat([earlier, codes], dim=2))
        wanted = nn.functional.pad(neighbor, (0, 1), value=PADDING)
        wanted = wanted.clamp(max=self.unknown)
        lengths = (neighbor != PADDING).sum(1)
        places = torch.arange(wanted.shape[1], device=wanted.device)
        is_predicted = (places <= lengths[:, None]) & (lengths > 0)[:, None]
        losses = torch.zeros(wanted.shape, device=wanted.device)
        losses[is_predicted] = nn.functional.cross_entropy(
            self.to_words(states[is_predicted]).float(),
            wanted[is_predicted],
            reduction="none",
        )
        return losses.sum(1) / (lengths + 1)
