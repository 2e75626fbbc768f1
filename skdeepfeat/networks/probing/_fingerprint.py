"""What identifies a user's own network: its tensors and its output for fixed images.

Its code does not count. A change that matters changes the output, wherever it is made:
in a helper, a constant, a hook or the environment. Networks with the same tensors and
output are the same network, even if their locks, loggers or addresses differ.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from blake3 import blake3

from ..._utils._random import has_generator, random_states, random_states_kept

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

# Increase this when the images change, because caches hold rows of the older images.
_IMAGES_VERSION = 1

_CORNERS = [(r, g, b) for r in (0, 255) for g in (0, 255) for b in (0, 255)]


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
        return {"tensors": self.tensors, "probe": _IMAGES_VERSION}

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
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
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
    return np.bincount(np.arange(len(values)) % n_sums, weights=values)


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
    found = found.astype(np.float64)  # in which no difference overflows
    return np.allclose(found, wanted, rtol=0, atol=allowed, equal_nan=True)


# -- The images


@functools.lru_cache(maxsize=4)
def probe_images(crop):
    """Return a few images that are as different from each other as possible.

    They are made with integer arithmetic, so they are the same on every machine.

    Parameters
    ----------
    crop : tuple of (int, int)
        Height and width, pixels.

    Returns
    -------
    ndarray of uint8, shape (n_images, height, width, 3), read-only
    """
    height, width = crop
    y, x = np.mgrid[:height, :width]
    texture = _texture(height, width)
    images = np.stack(
        [
            texture,
            _noise("noise", (height, width, 3)),
            np.zeros((height, width, 3), np.uint8),
            np.full((height, width, 3), 255, np.uint8),
            _gradients(y, x, height, width),
            np.array(_CORNERS, np.uint8)[(8 * x // width + 3 * (4 * y // height)) % 8],
            _squares(y, x, height, width),
            96 + texture // 8,  # low contrast
        ]
    ).astype(np.uint8)
    images.flags.writeable = False
    return images


def _noise(name, shape):
    # The output of a hash, because NumPy's generators may change their numbers.
    stream = blake3(f"skdeepfeat probe {_IMAGES_VERSION} {name}".encode())
    n_bytes = int(np.prod(shape))
    return np.frombuffer(stream.digest(length=n_bytes), np.uint8).reshape(shape)


def _gradients(y, x, height, width):
    down, right = 255 * y // max(height - 1, 1), 255 * x // max(width - 1, 1)
    return np.stack([right, down, (510 - down - right) // 2], axis=-1)


def _squares(y, x, height, width):
    """Return black and white squares, smaller towards the right."""
    sizes = np.array([16, 8, 5, 3, 2, 1])[6 * x // width]
    black = (y // sizes + x // sizes) % 2
    return np.repeat(255 * black[..., None], 3, axis=-1)


def _texture(height, width):
    """Return an image with the statistics of a photograph: 1/f noise, with edges."""
    total = np.zeros((height, width, 3), np.int64)
    weight, n = 128, 2
    while weight >= 4:
        total += weight * _smooth(
            _noise(f"octave {n}", (n + 1, n + 1, 3)), height, width
        )
        weight, n = weight // 2, 2 * n
    total //= 256
    y, x = np.mgrid[:height, :width]
    radius = min(height, width) // 4
    disc = (y - height // 3) ** 2 + (x - width // 3) ** 2 < radius**2
    bar = (x + y // 2) % max(width // 2, 2) < max(width // 16, 1)
    total[disc] = 255 - total[disc]
    total[bar & ~disc] //= 3
    return total


def _smooth(grid, height, width):
    """Return a small grid of values, linearly interpolated to the full size."""
    n = len(grid) - 1
    grid = grid.astype(np.int64)
    y, fy = np.divmod(np.arange(height) * n * 256 // max(height, 1), 256)
    x, fx = np.divmod(np.arange(width) * n * 256 // max(width, 1), 256)
    fy, fx = fy[:, None, None], fx[None, :, None]
    rows = grid[y] * (256 - fy) + grid[y + 1] * fy
    return (rows[:, x] * (256 - fx) + rows[:, x + 1] * fx) >> 16
