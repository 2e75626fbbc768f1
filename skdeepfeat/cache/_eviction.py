"""Which rows are evicted when the file reaches its limit: those used least recently.

To have another rule, change this file. `note_new` and `note_use` record what the rule
needs to know about rows, in the table `used`. `evict` chooses the rows to remove.
"""

import itertools
from collections.abc import Iterator
from sqlite3 import Connection

import numpy as np

from ._connection import PAGE_SIZE
from ._namespace import Namespace
from ._rows import as_ids, delete_rows, select_ids, transaction

# Seconds. Being read counts as use, but only once in this time, as with `relatime` of
# file systems. So a cache that is only read is rarely written to.
USE_GRANULARITY = 600

# Bytes of rows that are removed in one transaction. Other processes can write between
# two transactions, and the size of the write-ahead log stays bounded.
AT_ONCE = 2**24
# Rows that are examined together.
_N_CANDIDATES = 10_000
# Rows that are marked as used in one transaction.
_N_MARKED = 50_000
_USED = "UPDATE namespaces SET used = ? WHERE key = ?"


def evict(connection: Connection, target: int, protected: np.ndarray) -> None:
    """Remove the rows used least recently until at most `target` bytes are in use.

    The pages become free for new rows, so the file does not grow while there are any.
    It does not become smaller, which would mean moving its end to its beginning.

    Parameters
    ----------
    connection : sqlite3.Connection
        Not in a transaction.
    target : int
        Bytes.
    protected : ndarray of int64, ascending
        Ids of rows that stay, because the current job uses them.
    """
    oldest = _least_recently_used(connection, protected)
    # Rows that are scattered over many pages free none of them at first, so the freed
    # bytes are only known after the deletion.
    while (excess := live_bytes(connection) - target) > 0:
        ids, n_bytes = [], 0
        for row_id, row_bytes in oldest:
            ids.append(row_id)
            n_bytes += row_bytes
            if n_bytes >= min(excess, AT_ONCE):
                break
        if not ids:
            return
        with transaction(connection, "IMMEDIATE"):
            delete_rows(connection, ids)


def _least_recently_used(
    connection: Connection, protected: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Yield id and bytes of the rows that are not protected."""
    for found in _in_order_of_use(connection):
        ids = as_ids(row[1] for row in found)
        is_free = np.searchsorted(protected, ids, "left") == np.searchsorted(
            protected, ids, "right"
        )
        yield from ((row[1], row[2]) for row in itertools.compress(found, is_free))


def _in_order_of_use(connection: Connection) -> Iterator[list[tuple]]:
    """Yield (time, id, bytes) of all rows in parts, each found by the index."""
    select = "SELECT used, id, max(coalesce(CAST(bytes AS INTEGER), 0), 100) FROM used"
    # Not "(used, id) > (?, ?)": SQLite would scan all rows with the same time, and rows
    # that were read together have the same time.
    of_that_time = f"{select} WHERE used = ? AND id > ? ORDER BY id LIMIT ?"
    of_later = f"{select} WHERE used > ? ORDER BY used, id LIMIT ?"
    first = f"{select} ORDER BY used, id LIMIT ?"
    found = connection.execute(first, (_N_CANDIDATES,)).fetchall()
    while found:
        yield found
        used, row_id, _ = found[-1]
        found = (
            connection.execute(of_that_time, (used, row_id, _N_CANDIDATES)).fetchall()
            or connection.execute(of_later, (used, _N_CANDIDATES)).fetchall()
        )


def note_new(
    connection: Connection, namespace: Namespace, sizes: dict[int, int], now: int
) -> None:
    """Enter new rows of a namespace, given their bytes by id.

    In a table of its own: marking a thousand rows as used then rewrites one page of
    this narrow table instead of a hundred pages of rows.
    """
    connection.executemany(
        "INSERT OR REPLACE INTO used (id, used, bytes) VALUES (?, ?, ?)",
        ((row_id, now, footprint(n_bytes)) for row_id, n_bytes in sizes.items()),
    )
    connection.execute(_USED, (now, namespace.key))


def note_use(
    connection: Connection, hits: list[tuple[Namespace, np.ndarray]], now: int
) -> None:
    """Mark rows as used now, unless they were marked recently.

    Parameters
    ----------
    connection : sqlite3.Connection
    hits : list of (Namespace, ndarray of int64)
        Ids of rows, ascending.
    now : int
        Seconds since the epoch.
    """
    select = f"SELECT id FROM used WHERE used < {now - USE_GRANULARITY} AND"
    for namespace, ids in hits:
        stale: list[int] = []
        for chunk, cursor in select_ids(connection, select, ids.tolist()):
            if found := cursor.fetchall():
                stale += set(chunk).intersection(number for (number,) in found)
        if stale:
            # Not worth waiting for: the next reader will do it.
            connection.execute("PRAGMA busy_timeout = 250")
        for start in range(0, len(stale), _N_MARKED):
            with transaction(connection, "IMMEDIATE"):
                connection.executemany(
                    "UPDATE used SET used = ? WHERE id = ?",
                    ((now, number) for number in stale[start : start + _N_MARKED]),
                )
                connection.execute(_USED, (now, namespace.key))


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


def shrink(connection: Connection, n_bytes: int) -> None:
    """Return free pages to the disk until the file has `n_bytes` (if it can).

    Not within a transaction.
    """
    ((n_pages,),) = connection.execute("PRAGMA page_count").fetchall()
    excess = n_pages - n_bytes // PAGE_SIZE
    if excess <= 0:
        return
    n_at_once = AT_ONCE // PAGE_SIZE
    for start in range(0, excess, n_at_once):
        # One step of the statement frees one page. `execute` runs only one step of a
        # statement without columns, but a script runs to its end.
        n_next = min(n_at_once, excess - start)
        connection.executescript(f"PRAGMA incremental_vacuum({n_next});")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
