"""What identifies a user's own network: its tensors and its output for fixed images.

Its code is not examined. A change that matters changes the output, wherever it is made:
in a helper, a constant, a hook or the environment. Networks with the same output are
the same network, whatever locks, loggers and addresses they hold.
"""

from dataclasses import dataclass

import numpy as np
import torch
from blake3 import blake3

from .._random import random_states_kept
from ._probe_images import VERSION, probe_images

__all__ = ["Fingerprint", "digest_tensors", "fingerprint_of", "is_below_float32"]

# Of the largest value of a row. Rows of one network in float32 differ by up to 1e-5
# between batch sizes, numbers of threads and processors.
_TOLERANCE = 1e-4
# Of networks whose weights are in bfloat16 or float16: a rounding step of bfloat16.
_TOLERANCE_BELOW_FLOAT32 = 2.0**-8
# Rows that are nearly zero are compared by this share of the largest row's scale.
_SMALLEST_SCALE = 1e-3

# For each image, in what a job notes of a network.
_N_SUMS = 32

# Indices of the images that run twice: the texture and the noise.
_REPEATED = slice(0, 2)


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What a network is known by.

    Attributes
    ----------
    tensors : str
        Digest of its parameters and buffers.
    rows : tuple of ndarray of float32, shape (n_images, n_features)
        For each output, the rows of `probe_images`.
    tolerance : float
        How far rows of the same network may be apart, of a row's largest value.
    is_stable : bool
        Whether the same images gave the same rows once more, in another batch.
    """

    tensors: str
    rows: tuple[np.ndarray, ...]
    tolerance: float
    is_stable: bool

    def describe(self):
        """Return the exact part in JSON types."""
        return {"tensors": self.tensors, "probe": VERSION}

    def agrees(self, found, wanted):
        """Return whether two arrays of rows come from the same network."""
        return _agree(found, wanted, self.tolerance)

    def summary(self):
        """Return what is enough to recognize the rows by, as a text for each output.

        Sums of features with random signs, `_N_SUMS` for each image.
        """
        return [_sums(rows).tobytes().hex() for rows in self.rows]

    def agrees_with_summary(self, texts):
        """Return whether what `summary` returned earlier is of the same network."""
        if not isinstance(texts, list) or len(texts) != len(self.rows):
            return False
        for rows, text in zip(self.rows, texts, strict=True):
            wanted = _sums(rows)
            try:
                found = np.frombuffer(bytes.fromhex(text), "<f4").reshape(wanted.shape)
            except (TypeError, ValueError):
                return False
            if not self.agrees(found, wanted):
                return False
        return True

    def same_as(self, other):
        """Return whether another fingerprint is of the same network."""
        return (
            self.tensors == other.tensors
            and len(self.rows) == len(other.rows)
            and all(map(self.agrees, self.rows, other.rows))
        )


def fingerprint_of(neck, device):
    """Return the `Fingerprint` of a neck of a user's own network.

    Parameters
    ----------
    neck : Neck
    device : torch.device
        Where to run it.

    Raises
    ------
    Exception
        What the network raises.
    """
    # First: a network may count in a buffer how often it ran.
    tensors = digest_tensors(neck.spec.module)
    images = torch.tensor(probe_images(neck.preprocessing.crop))
    tolerance = _TOLERANCE
    if is_below_float32(neck.spec.module):
        tolerance = _TOLERANCE_BELOW_FLOAT32
    with random_states_kept(device), neck.loaded(device, n_images=0) as run:
        rows = tuple(run(images))
        again = run(images[_REPEATED])
    pairs = [(two, one[_REPEATED]) for one, two in zip(rows, again, strict=True)]
    return Fingerprint(
        tensors,
        rows,
        tolerance,
        all(_agree(*pair, tolerance) for pair in pairs),
    )


def is_below_float32(module):
    """Return whether a module has parameters that are less precise than float32."""
    return any(
        one.is_floating_point() and one.dtype.itemsize < 4
        for one in module.parameters()
    )


def digest_tensors(module):
    """Return the hexadecimal digest of a module's parameters and buffers.

    Names, types, shapes and values count. Where they are and how they lie in memory
    does not.

    Parameters
    ----------
    module : Module
    """
    # In this thread: the threads of a pool would be missing after a fork.
    hasher = blake3()
    tables = module.named_parameters(), module.named_buffers()
    for name, tensor in (pair for table in tables for pair in table):
        _update(hasher, name, tensor)
    return hasher.hexdigest()


def _update(hasher, name, tensor):
    hasher.update(f"\n{name} {tensor.dtype} {tensor.layout}".encode())
    try:
        parts = _plain_parts(tensor.detach())
    except Exception:  # a tensor without values, or of a kind that has no bytes
        parts = []  # what the network computes with it shows in its rows
    for part in parts:
        hasher.update(f"{tuple(part.shape)}".encode())
        # Through uint8, because numpy knows no bfloat16.
        flat = part.cpu().contiguous().reshape(-1).view(torch.uint8)
        hasher.update(flat.numpy().data)


def _plain_parts(tensor):
    """Return the dense tensors that hold the values of one of any kind."""
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [tensor.indices(), *_plain_parts(tensor.values())]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    if tensor.is_quantized:
        return [tensor.int_repr(), tensor.dequantize()]
    if tensor.is_meta:
        return []
    if tensor.numel():
        return [tensor.resolve_conj().resolve_neg()]
    return []


def _sums(rows):
    n_bytes = -(-rows.shape[1] * _N_SUMS // 8)
    stream = blake3(b"skdeepfeat signs").digest(length=max(n_bytes, 1))
    bits = np.unpackbits(np.frombuffer(stream, np.uint8))[: rows.shape[1] * _N_SUMS]
    signs = bits.reshape(rows.shape[1], _N_SUMS).astype(np.float64) * 2 - 1
    with np.errstate(invalid="ignore", over="ignore"):
        return (rows.astype(np.float64) @ signs).astype("<f4")


def _agree(found, wanted, tolerance):
    """Return whether rows are the same to a tolerance; NaN are equal to NaN."""
    if found.shape != wanted.shape:
        return False
    if not wanted.size:
        return True
    finite = np.isfinite(wanted)
    scale = np.abs(np.where(finite, wanted, 0)).max(axis=1, keepdims=True)
    scale = np.maximum(scale, _SMALLEST_SCALE * scale.max())
    with np.errstate(invalid="ignore", over="ignore"):
        close = np.abs(found - wanted) <= tolerance * scale
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    return bool(np.all(close | same))
