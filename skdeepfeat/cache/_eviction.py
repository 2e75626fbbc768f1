"""Which rows are evicted when the file reaches its limit: those used least recently.

To have another rule, change this file. `note_new` and `note_use` record what the rule
needs to know about rows, in the table `used`. `evict` chooses the rows to remove.
"""

from sqlite3 import Connection

from ._rows import delete_rows, in_chunks, transaction
from ._schema import PAGE_SIZE

# Seconds. Being read counts as use, but only once in this time, as with `relatime` of
# file systems: a cache that is only read is then rarely written to.
USE_GRANULARITY = 600


def evict(connection: Connection, target: int, protected: set[int]) -> None:
    """Remove the rows used least recently until at most `target` bytes are in use.

    The pages become free for new rows, so the file does not grow while there are any.
    It does not become smaller, which would mean moving its end to its beginning.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction.
    target : int
        Bytes.
    protected : set of int
        Ids of rows that stay, because the current job uses them.
    """
    while (excess := live_bytes(connection) - target) > 0:
        oldest = connection.execute(
            "SELECT id, max(coalesce(CAST(bytes AS INTEGER), 0), 100) FROM used "
            "ORDER BY CAST(used AS INTEGER), id"
        )
        candidates = (row for row in oldest if row[0] not in protected)
        ids = []
        # Rows that are scattered over many pages free none of them at first, hence
        # the outer loop.
        while excess > 0 and (row := next(candidates, None)) is not None:
            ids.append(row[0])
            excess -= row[1]
        oldest.close()
        if not ids:
            return
        delete_rows(connection, ids)


def note_new(connection: Connection, sizes: dict[int, int], now: int) -> None:
    """Enter new rows, given their bytes by id.

    In a table of its own: marking a thousand rows as used then rewrites one page of
    this narrow table instead of a hundred pages of rows.
    """
    connection.executemany(
        "INSERT OR REPLACE INTO used (id, used, bytes) VALUES (?, ?, ?)",
        ((row_id, now, footprint(n_bytes)) for row_id, n_bytes in sizes.items()),
    )


def note_use(connection: Connection, ids: list[int], now: int) -> None:
    """Mark rows (ascending) as used now, unless they were marked recently."""
    stale: list[tuple] = []
    for chunk, marks in in_chunks(ids):
        stale += connection.execute(
            f"SELECT id FROM used WHERE id IN ({marks}) AND used < ?",
            (*chunk, now - USE_GRANULARITY),
        )
    if stale:
        # Nobody should have to wait for this: the next reader will do it.
        connection.execute("PRAGMA busy_timeout = 250")
        with transaction(connection, "IMMEDIATE"):
            connection.executemany(
                "UPDATE used SET used = ? WHERE id = ?",
                ((now, number) for (number,) in stale),
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


def shrink(connection: Connection, n_bytes: int) -> None:
    """Return free pages to the disk until the file has `n_bytes` (if it can).

    Not within a transaction.
    """
    ((n_pages,),) = connection.execute("PRAGMA page_count").fetchall()
    excess = n_pages - n_bytes // PAGE_SIZE
    if excess > 0:
        # One step of the statement frees one page, and it has no columns, for which
        # `execute` steps only once. Scripts run to their end.
        connection.executescript(f"PRAGMA incremental_vacuum({excess});")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
