"""The SQLite file as a whole: what is in it, removing parts of it, examining it."""

import datetime
import json
from collections.abc import Callable
from sqlite3 import Connection
from typing import Any

from . import _rows, _variants
from ._checksum import is_valid, seed_of
from ._errors import StoreDamaged
from ._reports import CheckReport, NamespaceInfo, matches

# Bytes of the keys, labels and descriptions of all namespaces; one takes some hundred.
_MAX_NAMESPACES = 2**26


def look(connection: Connection) -> tuple[tuple[NamespaceInfo, ...], int]:
    """Return what is in the file, and how many files' digests."""
    with _rows.transaction(connection):
        n_files = _rows.count(connection, "files")
        totals = {
            number: rest
            for number, *rest in connection.execute(
                "SELECT CAST(namespace AS INTEGER), count(*), "
                "total(CAST(bytes AS INTEGER)), max(CAST(used AS INTEGER)) "
                "FROM rows JOIN used USING (id) GROUP BY namespace"
            )
        }
        namespaces = [
            _namespace_info(connection, record, totals[record[0]])
            for record in _namespaces(connection, "id, key, label, description")
            if record[0] in totals
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
    connection: Connection, record: tuple, totals: list
) -> NamespaceInfo:
    number, key, label, description = record
    n_rows, n_bytes, last_used = totals
    length = connection.execute(
        "SELECT length(data) FROM rows WHERE namespace = ? LIMIT 1", (number,)
    ).fetchone()
    return NamespaceInfo(
        label=str(label),
        description=_parsed(description),
        key=str(key),
        n_rows=n_rows,
        n_features=length[0] // 4 if length and length[0] else None,
        bytes=int(n_bytes or 0),
        last_used=_as_time(last_used),
    )


def _parsed(description: Any) -> dict:
    try:
        return dict(json.loads(description))
    # Damaged, or a stranger's; nothing but this summary reads it.
    except (TypeError, ValueError, RecursionError):
        return {}


def _as_time(seconds: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (TypeError, ValueError, OverflowError, OSError):  # damaged
        return None


def remove(connection: Connection, pattern: str | None) -> int:
    """Remove matching namespaces, or everything; return the number of rows."""
    with _rows.transaction(connection, "IMMEDIATE"):
        if pattern is None:
            n_rows = _rows.count(connection, "rows")
            for table in ("rows", "used", "files", "namespaces", "variants"):
                connection.execute(f"DELETE FROM {table}")
            return n_rows
        return sum(
            _remove_namespace(connection, number, key)
            for number, key, label in _namespaces(connection, "id, key, label")
            if matches(pattern, key, label)
        )


def _remove_namespace(connection: Connection, number: int, key: object) -> int:
    connection.execute(
        "DELETE FROM used WHERE id IN (SELECT id FROM rows WHERE namespace = ?)",
        (number,),
    )
    removed = connection.execute("DELETE FROM rows WHERE namespace = ?", (number,))
    connection.execute("DELETE FROM variants WHERE key = ?", (key,))
    connection.execute("DELETE FROM namespaces WHERE id = ?", (number,))
    return removed.rowcount


def examine(connection: Connection, path: str, repair: bool) -> CheckReport:
    """Return what was found in the file at `path`.

    Raises
    ------
    StoreDamaged
        If the structure of the file is damaged.
    """
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
