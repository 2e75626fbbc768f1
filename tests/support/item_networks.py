"""Modules over texts, and collate functions, for tests and joblib's workers."""

import os

import torch
from networks import fix_weights
from torch import nn


def to_codes(texts):
    """Pad texts as bytes; fail for what is not ASCII, as a tokenizer might."""
    codes = [torch.tensor(list(text.encode("ascii"))) for text in texts]
    lengths = torch.tensor([len(one) for one in codes])
    ids = nn.utils.rnn.pad_sequence(codes, batch_first=True)
    return ids, lengths


def with_mask(texts):
    ids, lengths = to_codes(texts)
    return {"ids": ids, "attention_mask": torch.arange(ids.shape[1]) < lengths[:, None]}


def with_lengths(texts):
    ids, lengths = to_codes(texts)
    return {"ids": ids, "lengths": lengths}


def ids_alone(texts):
    return to_codes(texts)[0].long()


class TextNet(nn.Module):
    """Embeds characters, mixes neighbors of unpadded positions, and averages.

    It notes how many items it sees in `log`, and is out of memory for more than
    `limit`.
    """

    def __init__(self, log=None, limit=1000):
        super().__init__()
        self.embedding = nn.Embedding(128, 12)
        self.mixing = nn.TransformerEncoderLayer(12, 2, 16, batch_first=True)
        self.head = nn.Linear(12, 3)
        self.log = None if log is None else str(log)
        self.limit = limit
        fix_weights(self.embedding, self.head)
        fix_weights(self.mixing, scale=0.3, seed=1)

    def forward(self, ids, attention_mask):
        if self.log is not None:
            with open(self.log, "a") as log:
                log.write(f"{len(ids)} {os.getpid()}\n")
        if len(ids) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate ...")
        mixed = self.mixing(
            self.embedding(ids), src_key_padding_mask=~attention_mask.bool()
        )
        weights = attention_mask[..., None].to(mixed.dtype)
        return self.head((mixed * weights).sum(1) / weights.sum(1))


class GatedNet(nn.Module):
    """A recurrent network that returns a tuple."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(128, 6)
        self.gru = nn.GRU(6, 10, batch_first=True)
        fix_weights(self, scale=0.5)

    def forward(self, ids):
        return self.gru(self.embedding(ids))
