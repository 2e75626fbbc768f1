"""The SQLite file as a whole: what is in it, removing parts of it, examining it."""

import datetime
import json
from collections.abc import Callable
from sqlite3 import Connection
from typing import Any

import numpy as np

from . import _eviction, _rows, _variants
from ._errors import StoreDamaged
from ._namespace import is_valid, seed_of
from ._reports import CheckReport, NamespaceInfo, matches

# Bytes of the keys, labels and descriptions of all namespaces; one takes some hundred.
_MAX_NAMESPACES = 2**26
# Reads only the index, which is sorted by namespace.
COUNT_ROWS = "SELECT CAST(namespace AS INTEGER), sum(1) FROM rows GROUP BY namespace"
# KiB of pages in memory while the file is examined: the index of 5 million rows.
_CACHE_TO_CHECK = 262_144


def look(connection: Connection) -> tuple[tuple[NamespaceInfo, ...], int]:
    """Return what is in the file, and how many files' digests."""
    with _rows.transaction(connection):
        n_files = _rows.count(connection, "files")
        n_rows = dict(connection.execute(COUNT_ROWS))
        namespaces = [
            _namespace_info(connection, record, n_rows[record[0]])
            for record in _namespaces(connection, "id, key, label, description, used")
            if record[0] in n_rows
        ]
    oldest = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    namespaces.sort(key=lambda each: each.last_used or oldest, reverse=True)
    return tuple(namespaces), n_files


def _namespaces(connection: Connection, columns: str) -> list[tuple]:
    """Return columns of all namespaces, unless they fill the memory."""
    records, size = [], 0
    for record in connection.execute(f"SELECT {columns} FROM namespaces"):
        size += 100 + sum(len(value) for value in record if hasattr(value, "__len__"))
        if size > _MAX_NAMESPACES:
            raise StoreDamaged("it has too many namespaces")
        records.append(record)
    return records


def _namespace_info(
    connection: Connection, record: tuple, n_rows: int
) -> NamespaceInfo:
    number, key, label, description, last_used = record
    length = _length_of_rows(connection, number)
    return NamespaceInfo(
        label=str(label),
        description=_parsed(description),
        key=str(key),
        n_rows=n_rows,
        n_features=length // 4 or None,
        bytes=n_rows * _eviction.footprint(length),
        last_used=_as_time(last_used),
    )


def _length_of_rows(connection: Connection, number: int) -> int:
    """Return the bytes of a row of a namespace, 0 if there is none."""
    found = connection.execute(
        "SELECT length(data) FROM rows WHERE namespace = ? LIMIT 1", (number,)
    ).fetchone()
    return (found and found[0]) or 0


def _parsed(description: Any) -> dict:
    try:
        return dict(json.loads(description))
    # Damaged or written by someone else. Only this summary reads it.
    except (TypeError, ValueError, RecursionError):
        return {}


def _as_time(seconds: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (TypeError, ValueError, OverflowError, OSError):  # damaged
        return None


def remove(connection: Connection, pattern: str | None) -> int:
    """Remove matching namespaces, or everything; return the number of rows."""
    if pattern is None:
        return _remove_all(connection, "files", "namespaces", "variants")
    known = _namespaces(connection, "id, key, label")
    matching = [
        (number, key) for number, key, label in known if matches(pattern, key, label)
    ]
    n_rows = 0
    if matching and len(matching) == len(known):
        # Emptying a table is instant. Deleting millions of rows takes minutes.
        n_rows = _remove_all(connection)
    return n_rows + sum(_remove_namespace(connection, *each) for each in matching)


def _remove_all(connection: Connection, *more: str) -> int:
    """Empty the tables of rows and the other tables; return the number of rows."""
    with _rows.transaction(connection, "IMMEDIATE"):
        n_rows = _rows.count(connection, "rows")
        for table in ("rows", "used", *more):
            connection.execute(f"DELETE FROM {table}")
        return n_rows


def _remove_namespace(connection: Connection, number: int, key: object) -> int:
    n_bytes = _eviction.footprint(_length_of_rows(connection, number))
    ids = _ids_of(connection, number)
    # In parts, as when rows are evicted.
    n_at_once = max(_eviction.AT_ONCE // n_bytes, 1)
    for start in range(0, len(ids), n_at_once):
        with _rows.transaction(connection, "IMMEDIATE"):
            _rows.delete_rows(connection, ids[start : start + n_at_once].tolist())
    with _rows.transaction(connection, "IMMEDIATE"):
        # Other processes may have written rows meanwhile. Without their namespace, they
        # would count as damaged rows of the next namespace, which reuses its number.
        late = _ids_of(connection, number)
        _rows.delete_rows(connection, late.tolist())
        connection.execute("DELETE FROM variants WHERE key = ?", (key,))
        connection.execute("DELETE FROM namespaces WHERE id = ?", (number,))
    return len(ids) + len(late)


def _ids_of(connection: Connection, number: int) -> np.ndarray:
    found = connection.execute("SELECT id FROM rows WHERE namespace = ?", (number,))
    ids = _rows.as_ids(row_id for (row_id,) in found)
    ids.sort()
    return ids


def examine(connection: Connection, path: str, repair: bool) -> CheckReport:
    """Return what was found in the file at `path`.

    Raises
    ------
    StoreDamaged
        If the structure of the file is damaged.
    """
    # Every key of the index is looked up.
    connection.execute(f"PRAGMA cache_size = -{_CACHE_TO_CHECK}")
    found = [text for (text,) in connection.execute("PRAGMA integrity_check(10)")]
    if found != ["ok"]:
        raise StoreDamaged(*found)
    with _rows.transaction(connection):
        seeds = {
            number: seed_of(str(key))
            for number, key in _namespaces(connection, "id, key")
        }

        def is_valid_row(listed, namespace, key, crc, data):
            # A row that is not in `used` would never be evicted.
            seed = seeds.get(namespace)
            is_known = listed is not None and seed is not None
            return is_known and is_valid(key, crc, data, seed)

        n_rows, bad_rows = _examine(
            connection,
            "SELECT rows.id, used.id, namespace, key, crc, data "
            "FROM rows LEFT JOIN used USING (id)",
            is_valid_row,
        )
        n_files, bad_files = _examine(
            connection, "SELECT key, key, crc, digest FROM files", is_valid
        )
        n_variants, bad_variants = _examine(
            connection,
            "SELECT id, namespace, name, crc, data FROM variants",
            _variants.is_valid_variant,
        )
    is_repaired = bool(repair and (bad_rows or bad_files or bad_variants))
    if is_repaired:
        with _rows.transaction(connection, "IMMEDIATE"):
            _rows.delete_rows(connection, bad_rows)
            connection.executemany("DELETE FROM files WHERE key = ?", zip(bad_files))
            connection.executemany(
                "DELETE FROM variants WHERE id = ?", zip(bad_variants)
            )
    return CheckReport(
        path,
        n_rows=n_rows,
        n_files=n_files,
        n_damaged=len(bad_rows),
        n_damaged_files=len(bad_files),
        repaired=is_repaired,
        n_variants=n_variants,
        n_damaged_variants=len(bad_variants),
    )


def _examine(
    connection: Connection, query: str, is_valid: Callable
) -> tuple[int, list]:
    """Return how many entries a query finds, and the first value of damaged ones."""
    n_entries, bad = 0, []
    for identity, *rest in connection.execute(query):
        n_entries += 1
        if not is_valid(*rest):
            bad.append(identity)
    return n_entries, bad
