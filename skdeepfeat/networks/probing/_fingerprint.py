"""What identifies a user's own network: its tensors and its output for fixed images.

Its code does not count. A change that matters changes the output, wherever it is made:
in a helper, a constant, a hook or the environment. Networks with the same tensors and
output are the same network, even if their locks, loggers or addresses differ.
"""

from dataclasses import dataclass

import numpy as np
import torch
from blake3 import blake3

from ..._utils._random import has_generator, random_states, random_states_kept
from ._fingerprint_images import VERSION, probe_images

# Relative to the largest value of a row. In float32, rows of one network differ by up
# to 1e-5 between batch sizes, numbers of threads and processors.
_TOLERANCE = 1e-4
# For networks whose weights are in bfloat16 or float16: a rounding step of bfloat16.
_TOLERANCE_BELOW_FLOAT32 = 2.0**-8
# Rows that are nearly zero are compared relative to this share of the largest row.
_SMALLEST_SCALE = 1e-3
# In float32, relative to the largest value of a feature over the images, as features
# may differ in scale by orders of magnitude. Measured differences are up to 3e-5.
_TOLERANCE_OF_FEATURE = 1e-3
# Relative to the largest value of a row. Smaller differences are rounding errors.
_ROUNDING = 1e-6

# Number of values in a summary, over all outputs: 64 KiB.
_N_IN_SUMMARY = 2**14
# The weights of the images in a summary. Any numbers that do not cancel out.
_WEIGHTS = np.sqrt([2, 3, 5, 7, 11, 13, 17, 19]) / 4

# Indices of the images that run twice: the noise and the texture. In another order,
# because a recurrence along the batch leaves the first images as they are.
_REPEATED = [1, 0]
# How often these images run again if the network may draw random numbers. Some networks
# do without using them. Others, with stochastic depth, draw one for each batch.
_N_IF_RANDOM = 32


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What identifies a network.

    Attributes
    ----------
    tensors : str
        Digest of its parameters and buffers.
    rows : tuple of ndarray of float32, shape (n_images, n_features)
        For each output, the rows of `probe_images`.
    tolerance : float
        How much rows of the same network may differ, relative to a row's largest value.
    is_stable : bool
        Whether the same images gave the same rows again, in another batch.
    """

    tensors: str
    rows: tuple[np.ndarray, ...]
    tolerance: float
    is_stable: bool

    def describe(self):
        """Return the exact part in JSON types."""
        return {"tensors": self.tensors, "probe": VERSION}

    def agrees(self, found, wanted):
        """Return whether two arrays of rows are those of the same network."""
        return _agree(found, wanted, _allowed(wanted, self.tolerance))

    def summary(self):
        """Return a short form of the rows that recognizes them, a str for each output.

        It has each feature's weighted sum over the images. If there are many features,
        several of them are added up with random signs.
        """
        return [self._sums(rows).tobytes().hex() for rows in self.rows]

    def _sums(self, rows):
        n_sums = min(rows.shape[1], max(_N_IN_SUMMARY // len(self.rows), 1))
        with np.errstate(invalid="ignore", over="ignore"):
            return _add_up(_WEIGHTS @ rows.astype(np.float64), n_sums).astype("<f4")

    def agrees_with_summary(self, texts):
        """Return whether an earlier `summary` is that of the same network."""
        if not isinstance(texts, list) or len(texts) != len(self.rows):
            return False
        for rows, text in zip(self.rows, texts, strict=True):
            wanted = self._sums(rows)
            # Independent errors add in quadrature.
            squares = _WEIGHTS**2 @ _allowed(rows, self.tolerance) ** 2
            allowed = np.sqrt(_add_up(squares, len(wanted), signed=False))
            try:
                found = np.frombuffer(bytes.fromhex(text), "<f4")
            except (TypeError, ValueError):
                return False
            if not _agree(found, wanted, allowed):
                return False
        return True

    def same_as(self, other):
        """Return whether another fingerprint is that of the same network."""
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
    # Before running it, because a buffer may count how often the network ran.
    tensors = digest_tensors(neck.spec.module)
    images = torch.tensor(probe_images(neck.preprocessing.crop))
    tolerance = _tolerance_of(neck.spec.module)
    with random_states_kept(device), neck.loaded(device, n_images=0) as run:
        rows = tuple(run(images))
        before = random_states(device)
        repeated = [run(images[_REPEATED])]
        if random_states(device) != before or has_generator(neck.spec.module):
            # Dropout of a few values leaves most rows as they are.
            repeated += [run(images[_REPEATED]) for _ in range(_N_IF_RANDOM)]
    is_stable = all(
        _agree(two, one[_REPEATED], _allowed(one, tolerance)[_REPEATED])
        for again in repeated
        for one, two in zip(rows, again, strict=True)
    )
    return Fingerprint(tensors, rows, tolerance, is_stable)


def rows_agree(found, wanted, module):
    """Return whether two arrays of rows can be those of one network.

    Parameters
    ----------
    found, wanted : ndarray of float32, shape (n_items, n_features)
    module : Module
        Its precision decides how much they may differ.
    """
    return _agree(found, wanted, _allowed(wanted, _tolerance_of(module)))


def _tolerance_of(module):
    return _TOLERANCE_BELOW_FLOAT32 if is_below_float32(module) else _TOLERANCE


def is_below_float32(module):
    """Return whether a module has parameters that are less precise than float32."""
    return any(
        one.is_floating_point() and one.dtype.itemsize < 4
        for one in module.parameters()
    )


def digest_tensors(module):
    """Return the hexadecimal digest of a module's parameters and buffers.

    Names, types, shapes and values count. The device and the order in memory do not.

    Parameters
    ----------
    module : Module
    """
    # With one thread, because the threads of a pool are missing after a fork.
    hasher = blake3()
    tables = module.named_parameters(), module.named_buffers()
    for name, tensor in (pair for table in tables for pair in table):
        _update(hasher, name, tensor)
    return hasher.hexdigest()


def _update(hasher, name, tensor):
    hasher.update(f"\n{name} {tensor.dtype} {tensor.layout}".encode())
    try:
        dense = tensor.detach().cpu()
        if dense.is_quantized:
            dense = dense.dequantize()
        if dense.layout != torch.strided:
            dense = dense.to_dense()
        # As uint8, because numpy has no bfloat16.
        flat = dense.resolve_conj().resolve_neg().contiguous().reshape(-1)
        data = flat.view(torch.uint8).numpy().data
    except Exception:  # a tensor without values, or of a kind that has no bytes
        return  # a change of it changes the rows
    hasher.update(f"{tuple(dense.shape)}".encode())
    hasher.update(data)


def _add_up(values, n_sums, *, signed=True):
    """Return `n_sums` sums, each of values at equal distances."""
    if n_sums == len(values):
        return values
    if signed:
        stream = blake3(b"skdeepfeat signs").digest(length=-(-len(values) // 8))
        bits = np.unpackbits(np.frombuffer(stream, np.uint8))[: len(values)]
        values = values * (bits * 2.0 - 1)
    padded = np.zeros(-(-len(values) // n_sums) * n_sums)
    padded[: len(values)] = values
    return padded.reshape(-1, n_sums).sum(axis=0)


def _allowed(rows, tolerance):
    """Return how much each value may differ in rows of the same network."""
    if not rows.size:
        return np.zeros(rows.shape)
    sizes = np.abs(np.where(np.isfinite(rows), rows, 0)).astype(np.float64)
    scale = sizes.max(axis=1, keepdims=True)
    scale = np.maximum(scale, _SMALLEST_SCALE * scale.max())
    if tolerance > _TOLERANCE:  # small features are noise in that precision
        return np.broadcast_to(tolerance * scale, rows.shape)
    of_feature = _TOLERANCE_OF_FEATURE * sizes.max(axis=0)
    return np.minimum(tolerance * scale, np.maximum(of_feature, _ROUNDING * scale))


def _agree(found, wanted, allowed):
    """Return whether values are equal up to a tolerance. NaN equals NaN."""
    if found.shape != wanted.shape:
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        close = np.abs(found.astype(np.float64) - wanted) <= allowed
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    return bool(np.all(close | same))
