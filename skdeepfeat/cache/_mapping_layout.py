"""How rows are stored in a mapping: the names of the entries, and the bytes of each.

    skdeepfeat-v1/<namespace>/<image>           one row
    skdeepfeat-v1/<namespace>/namespace.json    label and description, for people
    skdeepfeat-v1/<namespace>/variants          names and probe rows, see `_variants`

`namespace` and `image` are the hexadecimal digests of 64 characters that identify a
neck and the content of an image. A row is four bytes ``skdf``, its checksum (CRC-32,
four bytes, little-endian), and its values, little-endian float32. As in the SQLite file
the checksum covers namespace and image, so that an entry under another's name is
noticed. A change of any of this needs a new number after the ``v``.
"""

import json
import re
import struct
import zlib
from typing import Any

from ._namespace import Namespace, seed_of
from ._variants import MAX_VARIANTS

_PREFIX = "skdeepfeat-v1"
_NAME = re.compile(
    rf"{_PREFIX}/([0-9a-f]{{64}})/(?:([0-9a-f]{{64}})|namespace\.json|variants)"
)
_HEADER = struct.Struct("<4sI")
_VARIANT = struct.Struct("<64sQ")  # name, number of bytes that follow


def row_name(namespace_key: str, key: bytes) -> str:
    """Return the name of a row's entry."""
    return f"{_PREFIX}/{namespace_key}/{key.hex()}"


def description_name(namespace_key: str) -> str:
    """Return the name of the entry that says what a namespace is."""
    return f"{_PREFIX}/{namespace_key}/namespace.json"


def variants_name(namespace_key: str) -> str:
    """Return the name of the entry that holds the variants of a namespace."""
    return f"{_PREFIX}/{namespace_key}/variants"


def parse_name(name: object) -> tuple[str, bytes | None] | None:
    """Return (namespace, key) of an entry, None for an entry that is not ours.

    The key of a namespace's description and variants is None.
    """
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        return None
    return found[1], None if found[2] is None else bytes.fromhex(found[2])


def pack_row(namespace_key: str, key: bytes, row: Any) -> bytes:
    """Return the stored form of a row, a buffer of little-endian float32."""
    return _pack(b"skdf", zlib.crc32(key, seed_of(namespace_key)), bytes(row))


def unpack_row(namespace_key: str, key: bytes, value: object) -> bytes | None:
    """Return the values of a stored row, None if it is not what was stored."""
    return _unpack(b"skdf", zlib.crc32(key, seed_of(namespace_key)), value)


def _pack(magic: bytes, seed: int, data: bytes) -> bytes:
    return _HEADER.pack(magic, zlib.crc32(data, seed)) + data


def _unpack(magic: bytes, seed: int, value: object) -> bytes | None:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return None
    value = bytes(value)
    data = value[_HEADER.size :]
    return data if value == _pack(magic, seed, data) else None


def describe_namespace(namespace: Namespace) -> bytes:
    """Return the stored form of a namespace's label and description."""
    record = {"label": namespace.label, "description": namespace.description}
    return json.dumps(record, sort_keys=True).encode()


def read_description(value: Any) -> tuple[str, dict]:
    """Return (label, description) of a namespace, as far as they can be read."""
    try:
        record = json.loads(bytes(value))
        return str(record["label"]), dict(record["description"])
    # Damaged or written by someone else. Only summaries read it.
    except (KeyError, TypeError, ValueError, RecursionError):
        return "", {}


def pack_variants(namespace_key: str, known: list[tuple[str, bytes]]) -> bytes:
    """Return the stored form of the variants of a namespace, without the oldest."""
    data = b"".join(
        _VARIANT.pack(name.encode(), len(rows)) + rows
        for name, rows in known[-MAX_VARIANTS:]
    )
    return _pack(b"skdv", seed_of(namespace_key), data)


def unpack_variants(
    namespace_key: str, value: object
) -> list[tuple[str, bytes]] | None:
    """Return names and probe rows, or None if it is not what was stored."""
    data = _unpack(b"skdv", seed_of(namespace_key), value)
    if data is None:
        return None
    known, start = [], 0
    while start + _VARIANT.size <= len(data):
        name, length = _VARIANT.unpack_from(data, start)
        start += _VARIANT.size
        known.append((name.decode("ascii", "replace"), data[start : start + length]))
        start += length
    return known
