"""Digests of bytes, pixels, arrays and descriptions.

BLAKE3 is as fast as reading from memory. As it is a cryptographic hash, nobody can make
an image that gets the features of another one (https://github.com/BLAKE3-team).
"""

import functools
import hashlib
import json

import numpy as np
from blake3 import blake3

_PIXELS = "skdeepfeat 2026-11-21 canonical pixels v1"


def digest_bytes(data):
    """Return the 32-byte digest of a file's content."""
    return blake3(data).digest()


def digest_file(path):
    """Return the `digest_bytes` of a file's content."""
    # Not memory-mapped: if the file were truncated meanwhile, SIGBUS would end the
    # process.
    with open(path, "rb", buffering=0) as file:
        return hashlib.file_digest(file, blake3).digest()


def digest_pixels(pixels):
    """Return the 32-byte digest of one image's canonical pixels.

    With a key-derivation context, no file can have the digest of an array.

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
        Memory-mapped arrays are read once and not loaded.

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
    """Return the hexadecimal digest of a sequence of bytes objects.

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
    """Return the hexadecimal digest of a dict of JSON types, in any order."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return blake3(canonical.encode()).hexdigest()
