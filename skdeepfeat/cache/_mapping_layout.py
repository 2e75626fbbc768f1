"""How rows lie in a mapping: the names of the entries, and the bytes of each.

    skdeepfeat-v1/<namespace>/<image>           one row
    skdeepfeat-v1/<namespace>/namespace.json    label and description, for people
    skdeepfeat-v1/<namespace>/variants          see `_variants`: names and probe rows

`namespace` and `image` are the hexadecimal digests of 64 characters that identify a
neck and an image's content. A row is four bytes ``skdf``, its checksum (CRC-32, four
bytes, little-endian), and its values, little-endian float32. As in the SQLite file
the checksum covers namespace and image, so that an entry under another's name is
noticed. A change of any of this is a new number behind the ``v``.
"""

import json
import re
import struct
import zlib

from ._namespace import Namespace
from ._rows import checksum_seed

__all__ = [
    "PREFIX",
    "describe_namespace",
    "description_name",
    "pack_row",
    "parse_name",
    "read_description",
    "row_name",
    "unpack_row",
    "variants_name",
]

PREFIX = "skdeepfeat-v1"

_MAGIC = b"skdf"
_HEADER = struct.Struct("<4sI")
_NAME = re.compile(
    rf"{PREFIX}/([0-9a-f]{{64}})/(?:([0-9a-f]{{64}})|namespace\.json|variants)"
)


def row_name(namespace_key: str, key: bytes) -> str:
    """Return the name of a row's entry."""
    return f"{PREFIX}/{namespace_key}/{key.hex()}"


def description_name(namespace_key: str) -> str:
    """Return the name of the entry that says what a namespace is."""
    return f"{PREFIX}/{namespace_key}/namespace.json"


def variants_name(namespace_key: str) -> str:
    """Return the name of the entry that holds the variants of a namespace."""
    return f"{PREFIX}/{namespace_key}/variants"


def parse_name(name: object) -> tuple[str, bytes | None] | None:
    """Return (namespace, key) of an entry, None for an entry that is not ours.

    The key of a namespace's description and variants is None.
    """
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None:
        return None
    return found[1], None if found[2] is None else bytes.fromhex(found[2])


def pack_row(namespace_key: str, key: bytes, row: object) -> bytes:
    """Return the stored form of a row, a buffer of little-endian float32."""
    data = bytes(row)
    crc = zlib.crc32(data, zlib.crc32(key, checksum_seed(namespace_key)))
    return _HEADER.pack(_MAGIC, crc) + data


def unpack_row(namespace_key: str, key: bytes, value: object) -> bytes | None:
    """Return the values of a stored row, None if it is not what was stored."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return None
    value = bytes(value)
    if len(value) < _HEADER.size:
        return None
    magic, stored = _HEADER.unpack_from(value)
    data = value[_HEADER.size :]
    crc = zlib.crc32(data, zlib.crc32(key, checksum_seed(namespace_key)))
    return data if magic == _MAGIC and crc == stored else None


def describe_namespace(namespace: Namespace) -> bytes:
    """Return the stored form of a namespace's label and description."""
    record = {"label": namespace.label, "description": namespace.description}
    return json.dumps(record, sort_keys=True).encode()


def read_description(value: object) -> tuple[str, dict]:
    """Return (label, description) of a namespace, as far as they can be read."""
    try:
        record = json.loads(bytes(value))
        return str(record["label"]), dict(record["description"])
    except (KeyError, TypeError, ValueError):  # damaged; only summaries read it
        return "", {}
