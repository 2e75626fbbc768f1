"""Digests of files that have not changed since they were last read.

As git's index does: a file with the same path, size, modification time and inode has
the same content. It is the one thing here that is believed without looking at the
image, hence the care about files changed in the very moment they were read.
"""

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from sqlite3 import Connection

from .._utils._filestat import FileStat

__all__ = ["FileMemo", "count", "is_sound", "recall", "remember"]

_CHUNK = 500
# A damaged file may claim values of any length, which are not to fill the memory.
_SOUND = "length(digest) = 32 AND length(key) <= 65536"
# Nanoseconds. A file can change again without its time stamp changing if that
# happens within one tick of the file system's clock: at most 10 ms on Linux, 2 s
# where times are kept in whole seconds.
_TICK = 20_000_000
_COARSE_TICK = 2_000_000_000


class FileMemo:
    """What is remembered about files, for those who turn files into digests.

    Parameters
    ----------
    open_store : callable
        Returns a store, to be used in a ``with``.
    """

    def __init__(self, open_store: Callable):
        self._open_store = open_store

    def lookup(self, stats: list[FileStat]) -> list[bytes | None]:
        """Return the digests of files that are as they were when last digested.

        Parameters
        ----------
        stats : list of FileStat

        Returns
        -------
        list of bytes or None
        """
        if not stats:
            return []
        with self._open_store() as store:
            return store.recall_files(stats)

    def remember(self, stats: list[FileStat], digests: list[bytes]) -> None:
        """Keep digests of files.

        Parameters
        ----------
        stats : list of FileStat
            Taken before the files were read.
        digests : list of bytes
        """
        if stats:
            with self._open_store() as store:
                store.remember_files(stats, digests)


def recall(connection: Connection, stats: list[FileStat]) -> list[bytes | None]:
    """Return the remembered digests, None for files that are new or have changed."""
    keys = [_key(stat) for stat in stats]
    wanted = set(keys)
    digests, crc32 = {}, zlib.crc32
    for found in _look_up(connection, sorted(wanted)):
        for key, digest, crc in found:
            # A damaged digest would be taken for another image's.
            if (
                key in wanted
                and type(digest) is bytes
                and crc32(digest, crc32(key)) == crc
            ):
                digests[key] = digest
    return [digests.get(key) for key in keys]


def _look_up(connection: Connection, keys: list[bytes]) -> Iterator[Iterable]:
    """Yield cursors over (key, digest, crc) of the files `keys`, and of others."""
    for start in range(0, len(keys), _CHUNK):
        chunk = keys[start : start + _CHUNK]
        # Mostly all the files of a directory are wanted: walking along them takes half
        # the time of seeking each.
        limit = 2 * len(chunk)
        neighbors = connection.execute(
            "SELECT key, digest, crc FROM files "
            f"WHERE key BETWEEN ? AND ? AND {_SOUND} LIMIT ?",
            (chunk[0], chunk[-1], limit + 1),
        ).fetchall()
        if len(neighbors) <= limit:
            yield neighbors
            continue
        marks = ", ".join("?" * len(chunk))
        yield connection.execute(
            f"SELECT key, digest, crc FROM files WHERE key IN ({marks}) AND {_SOUND}",
            chunk,
        )


def _key(stat: FileStat) -> bytes:
    # Numbers as text, because inodes may be larger than SQLite's integers. Paths hold
    # no zero bytes.
    return b"%b\0%d %d %d" % (os.fsencode(stat.path), *stat[1:])


def is_sound(key: object, digest: object, crc: object) -> bool:
    """Return whether a digest is what was stored for this file."""
    return (
        type(key) is bytes
        and type(digest) is bytes
        and zlib.crc32(digest, zlib.crc32(key)) == crc
    )


def remember(
    connection: Connection,
    stats: list[FileStat],
    digests: list[bytes],
    now: float,
    limit: int,
) -> None:
    """Store digests; above `limit` files, forget those digested longest ago.

    A changed file is a new entry. The old one is left to be forgotten.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction.
    stats : list of FileStat
    digests : list of bytes
    now : float
        Seconds since the epoch.
    limit : int
    """
    settled = [
        (_key(stat), digest)
        for stat, digest in zip(stats, digests, strict=True)
        if _is_settled(stat, now)
    ]
    connection.executemany(
        "INSERT OR REPLACE INTO files (key, digest, crc, seen) VALUES (?, ?, ?, ?)",
        (
            (key, digest, zlib.crc32(digest, zlib.crc32(key)), int(now))
            for key, digest in settled
        ),
    )
    if (n_files := count(connection, "files")) > limit:
        connection.execute(
            "DELETE FROM files WHERE key IN "
            "(SELECT key FROM files ORDER BY CAST(seen AS INTEGER), key LIMIT ?)",
            (n_files - int(0.9 * limit),),
        )


def count(connection: Connection, table: str) -> int:
    """Return the number of entries of a table.

    SQLite counts all of ``count(*)`` in one step, which cannot be interrupted.
    """
    ((n_entries,),) = connection.execute(f"SELECT sum(1) FROM {table}").fetchall()
    return n_entries or 0


def _is_settled(stat: FileStat, now: float) -> bool:
    """Return whether a later change of the file would show in its time stamp."""
    coarse = stat.mtime_ns % 1_000_000_000 == 0
    return stat.mtime_ns < now * 1e9 - (_COARSE_TICK if coarse else _TICK)
