"""Content digests: of bytes, of pixels, of a description, of a network.

BLAKE3 is used because it hashes at memory speed and, unlike a checksum, a chosen
collision cannot plant a row in somebody's cache (https://github.com/BLAKE3-team).
"""

import dataclasses
import enum
import functools
import json
import types

import numpy as np
from blake3 import blake3

__all__ = [
    "DIGEST_SIZE",
    "digest_bytes",
    "digest_chunks",
    "digest_description",
    "digest_file",
    "digest_module",
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


def digest_module(module):
    """Return the hexadecimal digest of a user's network: weights, structure and code.

    Two networks with the same weights can compute different things: a changed
    `forward`, another activation, a different scale kept as a plain attribute. All
    of these count; where the parameters live (device) and the training flag do not.
    The code counts as bytecode, not as source text, because a class sent to a joblib
    worker arrives without its source.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    str
    """
    hasher = blake3()
    for name, child in module.named_modules():
        hasher.update(f"\n{name}:".encode())
        _update(hasher, type(child), set())
        attributes = {k: v for k, v in vars(child).items() if k not in _NOT_CONTENT}
        _update(hasher, attributes, set())
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        hasher.update(f"\n{name}".encode())
        _update(hasher, tensor, set())
    return hasher.hexdigest()


# Kept by torch.nn.Module itself: the three tables are walked on their own.
_NOT_CONTENT = {"_parameters", "_buffers", "_modules", "training"}
_OWN_LIBRARIES = ("torch", "torchvision", "timm")


def _update(hasher, value, seen):
    """Feed `value` to `hasher` by its content, never by its address or pickle."""
    hasher.update(f"<{type(value).__qualname__}>".encode())
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        hasher.update(repr(value).encode())
    elif isinstance(value, (bytes, bytearray)):
        hasher.update(value)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        hasher.update(f"{value.dtype.str}{value.shape}".encode())
        hasher.update(np.ascontiguousarray(value).tobytes())
    elif hasattr(value, "detach") and hasattr(value, "untyped_storage"):
        _update_tensor(hasher, value)
    elif id(value) in seen:
        hasher.update(b"<seen>")
    else:
        _update_compound(hasher, value, seen | {id(value)})


def _update_tensor(hasher, tensor):
    tensor = tensor.detach().cpu().contiguous()
    hasher.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    # Through uint8, because numpy knows no bfloat16.
    hasher.update(tensor.reshape(-1).view(dtype=_uint8()).numpy().tobytes())


def _uint8():
    import torch  # ground floor: imported only where a tensor has already come in

    return torch.uint8


def _update_compound(hasher, value, seen):
    if isinstance(value, dict):
        for key in value:
            _update(hasher, key, seen)
            _update(hasher, value[key], seen)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _update(hasher, item, seen)
    elif isinstance(value, (set, frozenset)):
        # Sets of strings iterate in another order in every process.
        parts = []
        for item in value:
            part = blake3()
            _update(part, item, seen)
            parts.append(part.digest())
        hasher.update(b"".join(sorted(parts)))
    elif isinstance(value, enum.Enum):
        hasher.update(f"{type(value).__qualname__}.{value.name}".encode())
    elif isinstance(value, types.CodeType):
        hasher.update(value.co_code)
        _update(hasher, (value.co_names, value.co_consts), seen)
    elif isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        _update(
            hasher, (value.__code__, value.__defaults__, value.__kwdefaults__), seen
        )
        _update(hasher, cells, seen)
    elif isinstance(value, types.MethodType):
        _update(hasher, (value.__func__, value.__self__), seen)
    elif isinstance(value, functools.partial):
        _update(hasher, (value.func, value.args, value.keywords), seen)
    elif isinstance(value, type):
        _update_class(hasher, value, seen)
    elif dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
        _update(hasher, type(value), seen)
        _update(hasher, dict(vars(value)), seen)
    else:
        # torch.dtype, torch.device, built-in functions: their text says it all.
        hasher.update(str(getattr(value, "__qualname__", value)).encode())


def _update_class(hasher, cls, seen):
    hasher.update(f"{cls.__qualname__}".encode())
    for base in cls.__mro__:
        library = (base.__module__ or "").partition(".")[0]
        if library in _OWN_LIBRARIES or base is object:
            hasher.update(f"{library}.{base.__qualname__}".encode())
            continue
        for name in sorted(vars(base)):
            member = vars(base)[name]
            if isinstance(member, (staticmethod, classmethod)):
                member = member.__func__
            if isinstance(member, property):
                member = member.fget
            if isinstance(member, (types.FunctionType, int, float, str, tuple)):
                if name not in {"__module__", "__doc__", "__firstlineno__"}:
                    hasher.update(name.encode())
                    _update(hasher, member, seen)
