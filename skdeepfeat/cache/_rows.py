"""Rows of features in an open SQLite file: find, read, write, evict.

Functions on a connection; whoever calls them has begun the transaction. A row is
the little-endian float32 values of one image in one namespace. Its checksum covers
namespace and key as well, so a damaged index cannot pass off one image's row as
another's.
"""

import contextlib
import json
import zlib
from collections.abc import Collection, Iterator
from sqlite3 import Connection, Cursor

from ._faults import StoreDamaged
from ._namespace import Namespace
from ._schema import PAGE_SIZE

__all__ = [
    "NO_FREE_ID",
    "checksum_seed",
    "delete_ids",
    "evict",
    "find_ids",
    "footprint",
    "insert",
    "is_sound",
    "live_bytes",
    "namespace_id",
    "read_ids",
    "shrink",
    "touch",
    "transaction",
]

# Question marks in one statement; SQLite's own limit was 999 for a long time.
_CHUNK = 500
# Reading a whole namespace's index costs a third of looking up as many single keys.
_SCAN_FACTOR = 2
# A row whose number is beyond this was not numbered by us.
NO_FREE_ID = 2**62


@contextlib.contextmanager
def transaction(connection: Connection, kind: str = "DEFERRED") -> Iterator[None]:
    """Begin, then commit; roll back if anything at all goes wrong."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def checksum_seed(namespace_key: str) -> int:
    """Return what the checksum of a namespace's rows begins with."""
    return zlib.crc32(namespace_key.encode())


def is_sound(key: object, crc: object, data: object, seed: int) -> bool:
    """Return whether a row is what was stored."""
    return (
        type(key) is bytes
        and type(data) is bytes
        and zlib.crc32(data, zlib.crc32(key, seed)) == crc
    )


def namespace_id(
    connection: Connection, namespace: Namespace, *, create: bool = False
) -> int | None:
    """Return the number of a namespace in this file, or None."""
    found = connection.execute(
        "SELECT id FROM namespaces WHERE key = ?", (namespace.key,)
    ).fetchone()
    if found is not None or not create:
        return found[0] if found is not None else None
    record = (
        namespace.key,
        namespace.label,
        json.dumps(namespace.description, sort_keys=True),
    )
    connection.execute(
        "INSERT INTO namespaces (key, label, description) VALUES (?, ?, ?)", record
    )
    return namespace_id(connection, namespace)


def find_ids(
    connection: Connection, namespace: int, keys: list[bytes]
) -> dict[bytes, int]:
    """Return {key: id} with at least those of `keys` that are stored.

    Parameters
    ----------
    connection : sqlite3.Connection
    namespace : int
        Its number in this file.
    keys : list of bytes
    """
    if len(keys) > _CHUNK:
        limit = _SCAN_FACTOR * len(keys)
        every = connection.execute(
            "SELECT key, id FROM rows WHERE namespace = ? AND length(key) = 32 LIMIT ?",
            (namespace, limit + 1),
        )
        found = dict(every)
        if len(found) <= limit:
            return _with_sound_ids(found)
    found = {}
    for chunk in _chunks(keys):
        marks = ", ".join("?" * len(chunk))
        found.update(
            connection.execute(
                f"SELECT key, id FROM rows WHERE namespace = ? AND key IN ({marks})",
                (namespace, *chunk),
            )
        )
    return _with_sound_ids(found)


def _with_sound_ids(found: dict) -> dict[bytes, int]:
    # What a damaged index takes for a row's number may be anything.
    if not all(type(number) is int for number in found.values()):
        raise StoreDamaged("its index has no numbers for some rows")
    return found


def read_ids(connection: Connection, ids: list[int]) -> Iterator[Cursor]:
    """Yield cursors over (id, crc, data) of the rows `ids`, and of a few others.

    Parameters
    ----------
    connection : sqlite3.Connection
    ids : list of int
        Ascending, so that each page of the file is read once.
    """
    for chunk in _chunks(ids):
        if chunk[-1] - chunk[0] < 1.5 * len(chunk):
            # Rows that were stored together are mostly wanted together: walking
            # past a few others is cheaper than seeking each.
            # There is a limit, as the pages of a damaged file may lead in circles.
            yield connection.execute(
                "SELECT id, crc, data FROM rows WHERE id BETWEEN ? AND ? LIMIT ?",
                (chunk[0], chunk[-1], chunk[-1] - chunk[0] + 1),
            )
        else:
            marks = ", ".join("?" * len(chunk))
            yield connection.execute(
                f"SELECT id, crc, data FROM rows WHERE id IN ({marks})", chunk
            )


def insert(
    connection: Connection,
    namespace: int,
    seed: int,
    keys: list[bytes],
    rows: list,
    now: int,
) -> range:
    """Store rows that are not there yet.

    Parameters
    ----------
    connection : sqlite3.Connection
    namespace : int
    seed : int
        From `checksum_seed`.
    keys : list of bytes
    rows : list of buffers
        The values, little-endian float32.
    now : int
        Seconds since the epoch.

    Returns
    -------
    range
        The ids given to them.
    """
    ((last,),) = connection.execute("SELECT max(id) FROM rows").fetchall()
    first = (last or 0) + 1
    if first > NO_FREE_ID:
        raise StoreDamaged("row numbers are out of their range")
    ids = range(first, first + len(keys))
    crc32 = zlib.crc32
    connection.executemany(
        "INSERT INTO rows (id, namespace, key, crc, data) VALUES (?, ?, ?, ?, ?)",
        (
            (number, namespace, key, crc32(row, crc32(key, seed)), row)
            for number, key, row in zip(ids, keys, rows, strict=True)
        ),
    )
    # Apart from the rows: marking a thousand rows as used then rewrites a page of
    # this narrow table and not a hundred pages of rows.
    connection.executemany(
        "INSERT OR REPLACE INTO used (id, used, bytes) VALUES (?, ?, ?)",
        (
            (number, now, footprint(memoryview(row).nbytes))
            for number, row in zip(ids, rows, strict=True)
        ),
    )
    return ids


def delete_ids(connection: Connection, ids: Collection[int]) -> None:
    """Remove rows."""
    ids = sorted(ids)
    connection.executemany("DELETE FROM rows WHERE id = ?", zip(ids))
    connection.executemany("DELETE FROM used WHERE id = ?", zip(ids))


def touch(connection: Connection, ids: list[int], now: int, before: int) -> None:
    """Mark those of `ids` (ascending) as used now that were not since `before`."""
    stale = []
    for chunk in _chunks(ids):
        marks = ", ".join("?" * len(chunk))
        found = connection.execute(
            f"SELECT id FROM used WHERE id IN ({marks}) AND used < ?", (*chunk, before)
        )
        stale.extend(number for (number,) in found)
    if stale:
        # Nobody should have to wait for this: the next reader will see to it.
        connection.execute("PRAGMA busy_timeout = 250")
        with transaction(connection, "IMMEDIATE"):
            connection.executemany(
                "UPDATE used SET used = ? WHERE id = ?",
                ((now, number) for number in stale),
            )


def footprint(n_bytes: int) -> int:
    """Return about how many bytes of the file a row of `n_bytes` takes."""
    per_page = (PAGE_SIZE - 35) // (n_bytes + 60)
    in_page = PAGE_SIZE // per_page if per_page else int(1.2 * n_bytes)
    return in_page + 100  # its share of the index and of `used`


def live_bytes(connection: Connection) -> int:
    """Return the bytes of the file's pages that are in use."""
    ((n_pages,),) = connection.execute("PRAGMA page_count").fetchall()
    ((n_free,),) = connection.execute("PRAGMA freelist_count").fetchall()
    return (n_pages - n_free) * PAGE_SIZE


def evict(connection: Connection, target: int, protected: set[int]) -> None:
    """Remove the rows used least recently until at most `target` bytes are in use.

    The pages become free for new rows, so the file does not grow while there are
    any; it is not made smaller, which would mean moving its end to its beginning.

    Parameters
    ----------
    connection : sqlite3.Connection
    target : int
        Bytes.
    protected : set of int
        Ids that stay.
    """
    while (excess := live_bytes(connection) - target) > 0:
        oldest = connection.execute(
            "SELECT id, max(coalesce(CAST(bytes AS INTEGER), 0), 100) FROM used "
            "ORDER BY CAST(used AS INTEGER), id"
        )
        candidates = (row for row in oldest if row[0] not in protected)
        ids = []
        # Rows that are scattered over many pages free none of them at first, hence
        # the loop around.
        while excess > 0 and (row := next(candidates, None)) is not None:
            ids.append(row[0])
            excess -= row[1]
        oldest.close()
        if not ids:
            return
        delete_ids(connection, ids)


def shrink(connection: Connection, n_bytes: int) -> None:
    """Give free pages back to the disk until the file has `n_bytes` (if it can).

    Not within a transaction.
    """
    ((n_pages,),) = connection.execute("PRAGMA page_count").fetchall()
    excess = n_pages - n_bytes // PAGE_SIZE
    if excess > 0:
        # One step of the statement frees one page, and it has no columns, for which
        # `execute` steps only once; scripts are run to their end.
        connection.executescript(f"PRAGMA incremental_vacuum({excess});")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _chunks(items: list) -> Iterator[list]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
