"""Content digests: of bytes, of pixels, of arrays, of a description.

BLAKE3 is used because it hashes at memory speed and, unlike a checksum, a chosen
collision cannot plant a row in somebody's cache (https://github.com/BLAKE3-team).
"""

import functools
import json

import numpy as np
from blake3 import blake3

__all__ = [
    "DIGEST_SIZE",
    "digest_arrays",
    "digest_bytes",
    "digest_chunks",
    "digest_description",
    "digest_file",
    "digest_pixels",
    "digest_strings",
]

DIGEST_SIZE = 32
_CHUNK = 1 << 20  # bytes
_PIXELS = "skdeepfeat 2026-11-21 canonical pixels v1"


def digest_bytes(data):
    """Return the 32-byte digest of a file's content."""
    return blake3(data).digest()


def digest_chunks(chunks):
    """Return the `digest_bytes` of what comes in pieces, and how many bytes it had."""
    hasher, n_bytes = blake3(), 0
    for chunk in chunks:
        hasher.update(chunk)
        n_bytes += len(chunk)
    return hasher.digest(), n_bytes


def digest_file(path):
    """Return the digest of a file's content, the same as `digest_bytes` of it."""
    # Read, not mapped: a file cut short meanwhile would end the process (SIGBUS).
    hasher = blake3()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.digest()


def digest_pixels(pixels):
    """Return the 32-byte digest of one image's canonical pixels.

    A key-derivation context sets these digests apart from those of files, so that no
    file's bytes can pose as an array.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (height, width) or (height, width, 3)

    Returns
    -------
    bytes
    """
    hasher = _pixel_hasher(pixels.dtype.str, pixels.shape).copy()
    hasher.update(np.ascontiguousarray(pixels).data)
    return hasher.digest()


@functools.lru_cache(maxsize=64)
def _pixel_hasher(dtype, shape):
    # Deriving the key takes longer than hashing a small image.
    hasher = blake3(derive_key_context=_PIXELS)
    hasher.update(f"{dtype}{shape}".encode())
    return hasher


def digest_arrays(*arrays):
    """Return the hexadecimal digest of arrays: their types, shapes and values.

    Parameters
    ----------
    *arrays : ndarray
        Memory-mapped ones are read through once, not loaded.

    Returns
    -------
    str
    """
    hasher = blake3()
    for array in arrays:
        hasher.update(f"{array.dtype.str}{array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return hasher.hexdigest()


def digest_strings(strings):
    """Return the hexadecimal digest of a sequence of bytes objects, gone through once.

    Parameters
    ----------
    strings : iterable of bytes

    Returns
    -------
    str
    """
    hasher = blake3()
    for string in strings:
        hasher.update(len(string).to_bytes(8, "little") + string)
    return hasher.hexdigest()


def digest_description(description):
    """Return the hexadecimal digest of a dict of JSON types, whatever its order."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return blake3(canonical.encode()).hexdigest()
