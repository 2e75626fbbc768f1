"""Items as bytes: what an item is, for its digest, and the way back.

Every value begins with the tag of its type and the length of what follows. So two items
with the same bytes are the same: 1, 1.0, True and "1" differ, as do ["ab", "c"] and
["a", "bc"], and arrays of another type or shape. Reading the bytes runs no code.
"""

import itertools
import struct

import numpy as np
import torch
from blake3 import blake3

from ._parameter_errors import first_line

_CONTEXT = "skdeepfeat 2026-11-27 item v1"

_ARRAY_KINDS = "biufcmMSU"
_LENGTH = struct.Struct("<cQ")
_DTYPES = {
    str(value): value for value in vars(torch).values() if type(value) is torch.dtype
}


def _encoded_text(text):
    return str(text).encode("utf-8", "surrogatepass")


def _encoded_int(number):
    return number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)


# By type: the tag, and the ways to bytes and back.
_PLAIN = {
    str: (b"s", _encoded_text, lambda data: str(data, "utf-8", "surrogatepass")),
    bytes: (b"b", bytes, bytes),
    type(None): (b"n", lambda nothing: b"", lambda data: None),
    bool: (b"t", lambda flag: bytes([flag]), lambda data: bool(data[0])),
    int: (b"i", _encoded_int, lambda d: int.from_bytes(d, "little", signed=True)),
    float: (b"f", struct.Struct("<d").pack, lambda data: struct.unpack("<d", data)[0]),
    complex: (
        b"c",
        lambda number: struct.pack("<dd", number.real, number.imag),
        lambda data: complex(*struct.unpack("<dd", data)),
    ),
}
_DECODERS = {tag: decode for tag, _, decode in _PLAIN.values()}
_PLAIN |= {np.str_: _PLAIN[str], np.bytes_: _PLAIN[bytes]}
_CONTAINERS = {list: b"l", tuple: b"u", dict: b"d"}


class NotEncodableError(TypeError):
    """An item, or something in it, has a type whose content is not known."""


def digest_item(data):
    """Return the 32-byte digest of what `encode_item` returned."""
    return blake3(data, derive_key_context=_CONTEXT).digest()


def encode_item(item):
    """Return an item as bytes that no other item has.

    Parameters
    ----------
    item : str, bytes, number, bool, None, ndarray, Tensor, or list, tuple or dict of \
these
        The order of a dict counts, because `collate` may depend on it. The device of a
        tensor does not.

    Returns
    -------
    bytes

    Raises
    ------
    NotEncodableError
    """
    try:
        return b"".join(_encoded(item))
    except RecursionError as error:
        raise NotEncodableError("it is nested too deeply, or contains itself") from (
            error
        )


def _encoded(item):
    kind = type(item)
    if kind in _PLAIN:
        tag, encode, _ = _PLAIN[kind]
        yield from _tagged(tag, encode(item))
    elif kind in (np.ndarray, np.memmap) or isinstance(item, np.generic):
        yield from _encoded_array(item)
    elif kind in (torch.Tensor, torch.nn.Parameter):
        yield from _encoded_tensor(item)
    elif kind in _CONTAINERS:
        values = itertools.chain.from_iterable(item.items()) if kind is dict else item
        yield from _tagged(_CONTAINERS[kind], *_encoded_all(values))
    else:
        raise NotEncodableError(f"the content of a {kind.__name__} is not known")


def _encoded_all(values):
    return [part for one in values for part in _encoded(one)]


def _tagged(tag, *parts):
    yield _LENGTH.pack(tag, sum(map(len, parts)))
    yield from parts


def _encoded_array(item):
    array = np.asarray(item)
    # A scalar is told from an array without axes.
    tag = b"g" if isinstance(item, np.generic) else b"a"
    shape = _encoded_all(map(int, array.shape))
    head = [*_tagged(b"s", array.dtype.str.encode()), *_tagged(b"u", *shape)]
    if array.dtype.kind == "O":
        values = _encoded_all(array.reshape(-1))
        yield from _tagged(tag, *head, *_tagged(b"l", *values))
    elif array.dtype.kind in _ARRAY_KINDS:
        yield from _tagged(tag, *head, *_tagged(b"b", array.tobytes()))
    else:
        raise NotEncodableError(f"the content of dtype {array.dtype} is not known")


def _encoded_tensor(item):
    if item.layout != torch.strided or item.is_quantized or item.is_meta:
        raise NotEncodableError("the content of such a tensor is not known")
    dense = item.detach().cpu().resolve_conj().resolve_neg().contiguous()
    shape = _encoded_all(map(int, dense.shape))
    # As uint8, because numpy has no bfloat16.
    data = dense.reshape(-1).view(torch.uint8).numpy().tobytes()
    head = [*_tagged(b"s", str(dense.dtype).encode()), *_tagged(b"u", *shape)]
    yield from _tagged(b"x", *head, *_tagged(b"b", data))


def decode_item(data):
    """Return the item that `encode_item` has encoded, in memory of its own.

    Raises
    ------
    ValueError
        If the bytes are not those of an item.
    """
    try:
        [item] = _values(memoryview(data))
    except Exception as error:  # numpy and torch raise anything
        raise ValueError(f"not an item: {first_line(error)}") from error
    return item


def _values(data):
    """Return the values that follow each other."""
    found, start = [], 0
    while start < len(data):
        tag, length = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        content = data[start : start + length]
        if len(content) != length:
            raise ValueError("it is cut off")
        found.append(_value(tag, content))
        start += length
    return found


def _value(tag, data):
    if tag in _DECODERS:
        return _DECODERS[tag](data)
    values = _values(data)
    if tag == b"l":
        return values
    if tag == b"u":
        return tuple(values)
    if tag == b"d":
        return dict(zip(values[::2], values[1::2], strict=True))
    kind, shape, content = values
    if tag == b"x":
        return _flat_tensor(kind, content).reshape(shape)
    array = _flat_array(kind, content).reshape(shape)
    return array[()] if tag == b"g" else array


def _flat_array(kind, content):
    dtype = np.dtype(kind)
    if dtype.kind == "O" and isinstance(content, list):
        array = np.empty(len(content), object)
        for i, one in enumerate(content):  # lists in it stay lists
            array[i] = one
        return array
    if dtype.kind not in _ARRAY_KINDS:
        raise ValueError(f"there are no arrays of dtype {dtype}")
    return np.frombuffer(_buffer(content), dtype)


def _flat_tensor(kind, content):
    data = _buffer(content)
    # torch refuses an empty buffer.
    flat = torch.frombuffer(data or bytearray(1), dtype=torch.uint8)
    return flat[: len(data)].view(_DTYPES[kind])


def _buffer(content):
    """Return bytes that can be changed."""
    if not isinstance(content, bytes):  # an int would be taken for a size
        raise ValueError(f"bytes were expected, not {type(content).__name__}")
    return bytearray(content)
