"""Digests of files that have not changed since they were last read.

As in git's index, a file with the same path, size, inode, mtime and ctime has the same
content. The cache trusts nothing else without reading the image. So callers do not
store files that were changed just before they were read (`is_settled`).
"""

import os
from sqlite3 import Connection

from .._utils._filestat import FileStat
from ._namespace import checksum, is_valid
from ._rows import count, in_chunks

# The values in a damaged file may claim any length, which must not fill the memory.
_SELECT = (
    "SELECT key, digest, crc FROM files "
    "WHERE length(digest) = 32 AND length(key) <= 65536 AND"
)


def lookup(connection: Connection, stats: list[FileStat]) -> list[bytes | None]:
    """Return the stored digests, None for files that are new or have changed."""
    keys = [_key(stat) for stat in stats]
    wanted = set(keys)
    digests = {}
    for chunk, marks in in_chunks(sorted(wanted)):
        # Usually, all files of a directory are needed. Scanning them takes half the
        # time of single lookups.
        limit = 2 * len(chunk)
        found = connection.execute(
            f"{_SELECT} key BETWEEN ? AND ? LIMIT ?", (chunk[0], chunk[-1], limit + 1)
        ).fetchall()
        if len(found) > limit:
            found = connection.execute(f"{_SELECT} key IN ({marks})", chunk).fetchall()
        for key, digest, crc in found:
            # A damaged digest could be that of another image.
            if key in wanted and is_valid(key, crc, digest):
                digests[key] = digest
    return [digests.get(key) for key in keys]


def _key(stat: FileStat) -> bytes:
    # Numbers as text, because inodes may be larger than SQLite's integers. Paths hold
    # no zero bytes.
    path, size, mtime, inode, ctime = stat
    return os.fsencode(f"{path}\0{size} {mtime} {inode} {ctime}")


def remember(
    connection: Connection,
    stats: list[FileStat],
    digests: list[bytes],
    now: float,
) -> None:
    """Store digests.

    A changed file is a new entry. The old one remains until it is removed.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction.
    stats : list of FileStat
    digests : list of bytes
    now : float
        Seconds since the epoch.
    """
    files = zip(map(_key, stats), digests, strict=True)
    connection.executemany(
        "INSERT OR REPLACE INTO files (key, digest, crc, seen) VALUES (?, ?, ?, ?)",
        ((key, digest, checksum(key, digest), int(now)) for key, digest in files),
    )


def forget_oldest(connection: Connection, limit: int) -> int:
    """Above `limit` files, remove those digested longest ago; return how many are left.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction.
    limit : int
    """
    n_files = count(connection, "files")
    if n_files <= limit:
        return n_files
    kept = int(0.9 * limit)
    connection.execute(
        "DELETE FROM files WHERE key IN "
        "(SELECT key FROM files ORDER BY CAST(seen AS INTEGER), key LIMIT ?)",
        (n_files - kept,),
    )
    return kept
