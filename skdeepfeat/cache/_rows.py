"""Rows of features in an open SQLite file: find, read, write, remove.

These functions are called within a transaction. A row is the little-endian float32
values of one image in one namespace.
"""

import contextlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from sqlite3 import Connection, Cursor

import numpy as np

from ._errors import StoreDamaged
from ._namespace import Namespace, checksum, seed_of

# Parameters in one statement. The limit of older versions of SQLite is 999.
_CHUNK = 500
# Scanning the index takes a third of the time of as many single lookups.
_SCAN_FACTOR = 2
# A row whose number is beyond this was not numbered by this package.
_NO_FREE_ID = 2**62
# KiB of pages in memory, for writing. The keys of new rows are scattered over the
# whole index. Pages that do not stay in memory are written several times.
_CACHE_TO_WRITE = 65_536


@contextlib.contextmanager
def transaction(connection: Connection, kind: str = "DEFERRED") -> Iterator[None]:
    """Begin, then commit; roll back if anything at all goes wrong."""
    if kind == "IMMEDIATE":
        connection.execute(f"PRAGMA cache_size = -{_CACHE_TO_WRITE}")
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def in_chunks(items: list) -> Iterator[tuple[list, str]]:
    """Yield parts of a list, each with question marks for a statement."""
    for start in range(0, len(items), _CHUNK):
        chunk = items[start : start + _CHUNK]
        yield chunk, ", ".join("?" * len(chunk))


def count(connection: Connection, table: str) -> int:
    """Return the number of entries of a table.

    SQLite counts all of ``count(*)`` in one step, which cannot be interrupted.
    """
    ((n_entries,),) = connection.execute(f"SELECT sum(1) FROM {table}").fetchall()
    return n_entries or 0


def find_ids(
    connection: Connection, namespace: Namespace, wanted: Mapping[bytes, int]
) -> dict[int, int]:
    """Return the ids of rows that are stored.

    Parameters
    ----------
    connection : sqlite3.Connection
    namespace : Namespace
    wanted : mapping of bytes to int
        A number for each key.

    Returns
    -------
    dict of int to int
        The ids, by these numbers.
    """
    select = (
        "SELECT key, id FROM rows "
        "WHERE namespace = (SELECT id FROM namespaces WHERE key = ?) AND"
    )
    found: dict[int, int] = {}
    is_dense = True
    # In their order, so that each page of the index is read once.
    for chunk, marks in in_chunks(sorted(wanted)):
        limit = _SCAN_FACTOR * len(chunk)
        if is_dense:
            # There is a limit, as the pages of a damaged file may form a cycle.
            rows = connection.execute(
                f"{select} key BETWEEN ? AND ? AND length(key) = 32 LIMIT ?",
                (namespace.key, chunk[0], chunk[-1], limit + 1),
            ).fetchall()
            # Digests are uniformly distributed, so a sample is representative.
            is_dense = len(rows) <= limit
        if not is_dense:
            rows = connection.execute(
                f"{select} key IN ({marks})", (namespace.key, *chunk)
            ).fetchall()
        for key, number in rows:
            if (place := wanted.get(key)) is not None:
                found[place] = number
    _check_ids(found.values())
    return found


def as_ids(numbers: Iterable) -> np.ndarray:
    """Return the ids that an index has for rows as an array of int64.

    Raises
    ------
    StoreDamaged
    """
    numbers = list(numbers)
    _check_ids(numbers)
    return np.array(numbers, np.int64)


def _check_ids(numbers: Collection) -> None:
    # In a damaged index, the number of a row may be any value.
    if not all(type(number) is int for number in numbers):
        raise StoreDamaged("its index has no numbers for some rows")


def select_ids(
    connection: Connection, select: str, ids: list[int]
) -> Iterator[tuple[list[int], Cursor]]:
    """Yield some of `ids`, and a cursor over the entries of these and of others.

    Parameters
    ----------
    connection : sqlite3.Connection
    select : str
        A statement up to its last condition, which is about the ids.
    ids : list of int
        Ascending, so that each page of the file is read once.
    """
    for chunk, marks in in_chunks(ids):
        if chunk[-1] - chunk[0] < 1.5 * len(chunk):
            # Rows that were stored together are usually read together: scanning
            # a few others is cheaper than single lookups.
            # There is a limit, as the pages of a damaged file may form a cycle.
            cursor = connection.execute(
                f"{select} id BETWEEN ? AND ? LIMIT ?",
                (chunk[0], chunk[-1], chunk[-1] - chunk[0] + 1),
            )
        else:
            cursor = connection.execute(f"{select} id IN ({marks})", chunk)
        yield chunk, cursor


def insert(
    connection: Connection,
    namespace: Namespace,
    keys: list[bytes],
    rows: list,
    damaged: Collection[bytes],
) -> dict[int, int]:
    """Store rows that are not there yet, and rows that replace damaged ones.

    Parameters
    ----------
    connection : sqlite3.Connection
    namespace : Namespace
    keys : list of bytes
    rows : list of buffers
        The values, little-endian float32.
    damaged : collection of bytes
        Keys of rows that are replaced.

    Returns
    -------
    dict of int to int
        The bytes of each new row, by its id.
    """
    known = connection.execute(
        "SELECT id FROM namespaces WHERE key = ?", (namespace.key,)
    ).fetchone()
    if known is None:
        description = json.dumps(namespace.description, sort_keys=True)
        number = connection.execute(
            "INSERT INTO namespaces (key, label, description) VALUES (?, ?, ?)",
            (namespace.key, namespace.label, description),
        ).lastrowid
    else:
        [number] = known
    new = dict(zip(keys, rows, strict=True))
    wanted = {key: place for place, key in enumerate(new)}
    present = find_ids(connection, namespace, wanted)
    replaced = [key for key in new if key in damaged and wanted[key] in present]
    delete_rows(connection, [present.pop(wanted[key]) for key in replaced])
    new = {key: row for key, row in new.items() if wanted[key] not in present}
    ((last,),) = connection.execute("SELECT max(id) FROM rows").fetchall()
    first = (last or 0) + 1
    if first > _NO_FREE_ID:
        raise StoreDamaged("row numbers are out of their range")
    seed = seed_of(namespace.key)
    connection.executemany(
        "INSERT INTO rows (id, namespace, key, crc, data) VALUES (?, ?, ?, ?, ?)",
        (
            (row_id, number, key, checksum(key, row, seed), row)
            for row_id, (key, row) in enumerate(new.items(), start=first)
        ),
    )
    sizes = (memoryview(row).nbytes for row in new.values())
    return dict(enumerate(sizes, start=first))


def delete_rows(connection: Connection, ids: Collection[int]) -> None:
    """Remove rows."""
    ids = sorted(ids)
    keys: list[tuple[bytes | None, int]] = []
    for chunk, marks in in_chunks(ids):
        keys += connection.execute(
            f"SELECT CAST(key AS BLOB), id FROM rows WHERE id IN ({marks})", chunk
        )
    # In the order of the index, so that each of its pages is changed once.
    keys.sort(key=lambda row: row[0] or b"")
    connection.executemany("DELETE FROM rows WHERE id = ?", ((i,) for _, i in keys))
    connection.executemany("DELETE FROM used WHERE id = ?", zip(ids))
