"""Variants of a namespace in the SQLite file.

A description does not identify a user's own network. So the network's rows for a few
fixed inputs, the probe rows, are stored as well. A network whose probe rows agree with
those of a variant is that variant; otherwise it is a new one. See `Store.recognize`.
"""

from sqlite3 import Connection

from ._namespace import Namespace, checksum, is_valid

# Limit for one namespace. Older ones are removed, and their rows are evicted later.
MAX_VARIANTS = 64
# Seconds. Younger ones may belong to rows that are being computed.
_YOUNG = 86_400


def recall(connection: Connection, namespace: Namespace) -> list[tuple[str, bytes]]:
    """Return names and probe rows of the undamaged variants, oldest first."""
    found = connection.execute(
        "SELECT name, crc, data FROM variants WHERE namespace = ? ORDER BY id LIMIT ?",
        (namespace.key, MAX_VARIANTS),
    )
    return [
        (name, data)
        for name, crc, data in found
        if is_valid_variant(namespace.key, name, crc, data)
    ]


def remember(
    connection: Connection, namespace: Namespace, name: str, data: bytes, now: int
) -> None:
    """Store a variant; remove damaged ones, and the oldest beyond the limit."""
    found = connection.execute(
        "SELECT id, name, crc, data FROM variants WHERE namespace = ? ORDER BY id",
        (namespace.key,),
    ).fetchall()
    valid = [one for one, *rest in found if is_valid_variant(namespace.key, *rest)]
    gone = {one for one, *_ in found}.difference(valid[1 - MAX_VARIANTS :])
    connection.executemany("DELETE FROM variants WHERE id = ?", zip(gone))
    crc = checksum(_key(namespace.key, name), data)
    connection.execute(
        "INSERT INTO variants (namespace, name, key, crc, seen, data) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (namespace.key, name, namespace.variant(name).key, crc, now, data),
    )


def delete_unused(connection: Connection, now: int) -> None:
    """Remove variants that are older than a day and have no rows."""
    connection.execute(
        "DELETE FROM variants WHERE seen < ? AND key NOT IN "
        "(SELECT key FROM namespaces WHERE EXISTS "
        "(SELECT 1 FROM rows WHERE rows.namespace = namespaces.id))",
        (now - _YOUNG,),
    )


def is_valid_variant(namespace: str, name: object, crc: object, data: object) -> bool:
    """Return whether a variant is what was stored."""
    return type(name) is str and is_valid(_key(namespace, name), crc, data)


def _key(namespace: object, name: object) -> bytes:
    return f"{namespace} {name}".encode()
