"""Variants of a namespace: the different results of networks with one description.

A description does not identify a user's own network. So its rows for a few fixed
inputs, the probe rows, are stored as well. A network whose probe rows match those of a
variant is that variant; any other is a new one.
"""

import sqlite3
import struct
import warnings
import zlib

import numpy as np

from .._utils._digests import digest_arrays
from .._utils._stacklevel import caller_stacklevel
from ..exceptions import CacheWarning
from ._namespace import Namespace

__all__ = [
    "choose",
    "delete_unused",
    "examine",
    "keep",
    "pack",
    "recall",
    "recognize",
    "unpack",
    "warn_of_unstable",
]

# Of one namespace. Older ones are forgotten, and their rows are evicted in time.
_N_KEPT = 64
# Seconds. What is younger may belong to rows that are being computed.
_YOUNG = 86_400

_HEADER = struct.Struct("<4sI")
_MAGIC = b"skdv"
_ENTRY = struct.Struct("<64sQ")


def recognize(store, namespace, rows, agree):
    """Return the variant of a namespace whose probe rows are these.

    Parameters
    ----------
    store : Store, MappingStore or NullStore
        Its ``settle_variant(namespace, name, data, fits)`` returns the name of the
        first variant that fits, which is a new one, `name`, where none does.
    namespace : Namespace
    rows : ndarray of float32, shape (n_images, n_features)
    agree : callable
        ``agree(rows, known rows) -> bool``.

    Returns
    -------
    Namespace
    """
    rows = np.ascontiguousarray(rows, "<f4")
    new = digest_arrays(rows)

    def fits(data):
        if len(data) != rows.nbytes:
            return False
        return agree(rows, np.frombuffer(data, "<f4").reshape(rows.shape))

    name = store.settle_variant(namespace, new, rows.tobytes(), fits)
    return variant_of(namespace, name)


def variant_of(namespace, name):
    """Return the namespace of a variant's rows."""
    description = {**namespace.description, "variant": name}
    return Namespace(description, namespace.label, namespace.work)


def choose(known, fits):
    """Return the name of the first variant that fits, or None.

    Parameters
    ----------
    known : iterable of (str, bytes)
        Names and probe rows, oldest first: all who ask get the same answer.
    fits : callable
    """
    return next((name for name, data in known if fits(data)), None)


def warn_of_unstable(name):
    """Warn that the rows of a network are not cached, because they are never the same.

    Parameters
    ----------
    name : str
        Of the network.
    """
    warning = CacheWarning(
        f"The features of {name!r} are not cached: it answered differently when it was "
        "run twice on the same images, as with dropout, random numbers or statistics "
        "of the batch in its forward. Each call computes them again. Set cache=None to "
        "avoid this warning."
    )
    warnings.warn(warning, stacklevel=caller_stacklevel() + 1)


# -- In the SQLite file


def recall(
    connection: sqlite3.Connection, namespace: Namespace
) -> list[tuple[str, bytes]]:
    """Return names and probe rows of the undamaged variants, oldest first."""
    found = connection.execute(
        "SELECT name, crc, data FROM variants WHERE namespace = ? ORDER BY id LIMIT ?",
        (namespace.key, _N_KEPT),
    )
    return [
        (name, data)
        for name, crc, data in found
        if _is_sound(namespace.key, name, crc, data)
    ]


def keep(
    connection: sqlite3.Connection,
    namespace: Namespace,
    name: str,
    data: bytes,
    now: int,
) -> None:
    """Store a variant, instead of a damaged one or beyond the limit of the oldest."""
    found = connection.execute(
        "SELECT id, name, crc, data FROM variants WHERE namespace = ? ORDER BY id",
        (namespace.key,),
    ).fetchall()
    sound = [one for one, *rest in found if _is_sound(namespace.key, *rest)]
    gone = {one for one, *_ in found}.difference(sound[1 - _N_KEPT :])
    connection.executemany("DELETE FROM variants WHERE id = ?", zip(gone))
    connection.execute(
        "INSERT INTO variants (namespace, name, key, crc, seen, data) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            namespace.key,
            name,
            variant_of(namespace, name).key,
            _checksum(namespace.key, name, data),
            now,
            data,
        ),
    )


def delete_unused(connection: sqlite3.Connection, now: int) -> None:
    """Remove variants that are older than a day and have no rows."""
    used = {
        key
        for (key,) in connection.execute(
            "SELECT key FROM namespaces WHERE EXISTS "
            "(SELECT 1 FROM rows WHERE rows.namespace = namespaces.id)"
        )
    }
    old = connection.execute(
        "SELECT id, key FROM variants WHERE seen < ?", (now - _YOUNG,)
    ).fetchall()
    unused = [(number,) for number, key in old if key not in used]
    connection.executemany("DELETE FROM variants WHERE id = ?", unused)


def examine(connection: sqlite3.Connection) -> tuple[int, list[int]]:
    """Return how many variants there are, and the ids of the damaged ones."""
    n_variants, bad = 0, []
    for number, *rest in connection.execute(
        "SELECT id, namespace, name, crc, data FROM variants"
    ):
        n_variants += 1
        if not _is_sound(*rest):
            bad.append(number)
    return n_variants, bad


def _checksum(namespace: str, name: str, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(f"{namespace} {name}".encode()))


def _is_sound(namespace: object, name: object, crc: object, data: object) -> bool:
    return (
        type(namespace) is str
        and type(name) is str
        and type(data) is bytes
        and _checksum(namespace, name, data) == crc
    )


# -- In an entry of a mapping


def pack(namespace: str, known: list[tuple[str, bytes]]) -> bytes:
    """Return the stored form of the variants of a namespace."""
    data = b"".join(
        _ENTRY.pack(name.encode(), len(rows)) + rows for name, rows in known[-_N_KEPT:]
    )
    return _HEADER.pack(_MAGIC, zlib.crc32(data, zlib.crc32(namespace.encode()))) + data


def unpack(namespace: str, value: object) -> list[tuple[str, bytes]] | None:
    """Return names and probe rows, or None if it is not what was stored."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        return None
    value = bytes(value)
    if len(value) < _HEADER.size:
        return None
    magic, crc = _HEADER.unpack_from(value)
    data = value[_HEADER.size :]
    if magic != _MAGIC or zlib.crc32(data, zlib.crc32(namespace.encode())) != crc:
        return None
    known, start = [], 0
    while start + _ENTRY.size <= len(data):
        name, length = _ENTRY.unpack_from(data, start)
        start += _ENTRY.size
        known.append((name.decode("ascii", "replace"), data[start : start + length]))
        start += length
    return known
