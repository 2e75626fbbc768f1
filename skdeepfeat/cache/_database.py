"""The SQLite file: made whole, opened for one call, set aside when it is damaged."""

import contextlib
import dataclasses
import os
import pathlib
import sqlite3
import threading
import time

from ._faults import StoreDamaged, StoreUnavailable, translated
from ._lock import hold

__all__ = ["PAGE_SIZE", "Database", "Handle"]

# In the file's name too, so that two versions of this package with different
# formats do not set each other's files aside.
FORMAT = 2
APPLICATION_ID = 0x736B6466  # "skdf"
# Rows are several kilobytes: pages of 4 KiB read 1.7 times slower.
PAGE_SIZE = 65536

_SCHEMA = """
CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE, label TEXT, description TEXT);
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, namespace INTEGER, key BLOB, crc INTEGER, data BLOB);
CREATE UNIQUE INDEX rows_by_key ON rows (namespace, key);
CREATE TABLE variants (
    id INTEGER PRIMARY KEY, namespace TEXT, name TEXT, key TEXT, crc INTEGER,
    seen INTEGER, data BLOB);
CREATE INDEX variants_by_namespace ON variants (namespace);
CREATE TABLE used (id INTEGER PRIMARY KEY, used INTEGER, bytes INTEGER);
CREATE TABLE files (
    key BLOB PRIMARY KEY, digest BLOB, crc INTEGER, seen INTEGER
) WITHOUT ROWID;
"""

_COMPANIONS = ("-wal", "-shm")


@dataclasses.dataclass
class Handle:
    """An open connection, and which file it is open on."""

    connection: sqlite3.Connection
    identity: tuple[int, int]
    # Opened without locks and without write-ahead log, because the directory is
    # read-only. Another program may then change the file under our eyes.
    frozen: bool

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()


class Database:
    """The file that holds the rows. Nothing here happens before it is asked for.

    The file is never opened by other means than SQLite's: closing any descriptor
    of it would drop the locks that SQLite's own connections of this process hold
    (https://www.sqlite.org/howtocorrupt.html, section 2.2).

    Parameters
    ----------
    directory : str
        Where the file and the locks are.
    timeout : float
        Seconds to wait for a lock on the file.
    wal_pages : int
        Pages that the write-ahead log may hold before they are moved to the file.
    """

    def __init__(self, directory: str, timeout: float, wal_pages: int):
        self.path = os.path.join(directory, f"features-v{FORMAT}.sqlite")
        self.locks = os.path.join(directory, "locks")
        self._timeout = timeout
        self._wal_pages = wal_pages

    def identity(self) -> tuple[int, int] | None:
        """Return (device, inode) of the file, or None where there is none."""
        with translated():
            try:
                status = os.stat(self.path)
            except FileNotFoundError:
                return None
        return status.st_dev, status.st_ino

    def is_writable(self) -> bool:
        """Return whether the system lets us write to the file and beside it."""
        effective = os.access in os.supports_effective_ids
        return all(
            os.access(path, os.W_OK, effective_ids=effective)
            for path in (self.path, os.path.dirname(self.path))
        )

    def size(self) -> int:
        """Return the bytes on disk, of the file and of what belongs to it."""
        return sum(_size_of(self.path + companion) for companion in ("", *_COMPANIONS))

    def aside(self) -> list[str]:
        """Return the paths of damaged files that were set aside, oldest first."""
        directory, name = os.path.split(self.path)
        try:
            names = os.listdir(directory)
        except OSError:
            return []
        return [
            os.path.join(directory, other)
            for other in sorted(names)
            if other.startswith(f"{name}.damaged-") and not other.endswith(_COMPANIONS)
        ]

    def open(self, *, create: bool) -> Handle | None:
        """Return a `Handle` on the file, or None if there is no file.

        Parameters
        ----------
        create : bool
            Make the file if there is none.

        Raises
        ------
        StoreDamaged, StoreUnavailable
        """
        for _ in range(10):
            identity = self.identity()
            if identity is None:
                if not create:
                    return None
                self._create()
                continue
            try:
                handle = self._connect(identity)
            except StoreDamaged as damage:
                damage.identity = identity
                raise
            # SQLite finds the write-ahead log by name, not by file: if somebody set
            # the file aside meanwhile, this connection has the log of another one.
            if handle is not None and self.identity() == identity:
                return handle
            if handle is not None:
                handle.close()
        raise StoreUnavailable("other programs keep replacing it")

    def _connect(self, identity: tuple[int, int]) -> Handle | None:
        uri = pathlib.Path(self.path).absolute().as_uri()
        first_fault = None
        for frozen, mode in ((False, "mode=rw"), (True, "mode=ro&immutable=1")):
            if frozen and _size_of(self.path + "-wal"):
                break  # what is in the log would be missing, or half there
            try:
                with translated():
                    connection = _connection(f"{uri}?{mode}", self._timeout)
                    _prepare(connection, self._wal_pages)
            except StoreUnavailable as fault:
                if self.identity() is None:
                    return None
                if fault.code not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                    raise
                first_fault = first_fault or fault
            else:
                return Handle(connection, identity, frozen)
        raise first_fault

    def _create(self) -> None:
        with hold(self.locks, ["file"], timeout=self._timeout), translated():
            if self.identity() is not None:
                return
            for companion in _COMPANIONS:  # left by a file that somebody removed
                pathlib.Path(self.path + companion).unlink(missing_ok=True)
            # Nobody sees a file that is not complete.
            scratch = f"{self.path}.new-{os.getpid()}-{threading.get_ident()}"
            try:
                _build(scratch)
                os.rename(scratch, self.path)
            finally:
                for companion in ("", "-journal", *_COMPANIONS):
                    pathlib.Path(scratch + companion).unlink(missing_ok=True)

    def set_aside(self, identity: tuple[int, int] | None) -> str | None:
        """Rename the damaged file, if it is still there.

        Other processes that have it open go on with it under its new name; they
        find out at their next call.

        Parameters
        ----------
        identity : (int, int)
            Which file was found damaged.

        Returns
        -------
        str or None
            Its new path; None if another process was faster.

        Raises
        ------
        StoreUnavailable
            If it cannot be renamed.
        """
        with hold(self.locks, ["file"], timeout=self._timeout), translated():
            if self.identity() != identity:
                return None
            stamp = time.strftime("%Y%m%dT%H%M%S")
            aside, n = f"{self.path}.damaged-{stamp}", 1
            while os.path.exists(aside):
                n += 1
                aside = f"{self.path}.damaged-{stamp}-{n}"
            # The log first: a file without its log is merely older, a log beside a
            # new file would be replayed into it.
            for companion in _COMPANIONS:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.path + companion, aside + companion)
            os.rename(self.path, aside)
            return aside


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _connection(uri: str, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=timeout, isolation_level=None, cached_statements=32
    )
    # Labels of a damaged file need not be UTF-8.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def _prepare(connection: sqlite3.Connection, wal_pages: int) -> None:
    """Set up a connection and make sure that the file is one of ours."""
    try:
        for pragma in (
            # KiB. Rows are read in the order of the file, each page once: a larger
            # cache only costs the time to fill fresh memory (twice as slow at 64 MiB).
            "cache_size = -8192",
            "cell_size_check = ON",  # notices more kinds of damage
            "trusted_schema = OFF",  # the file may come from anywhere
            "temp_store = MEMORY",
            # Debian's SQLite overwrites deleted rows with zeros: eviction would
            # write as much as it frees.
            "secure_delete = OFF",
            # A commit survives kill -9; the last seconds may not survive a power
            # cut, which costs their recomputation and nothing else.
            "synchronous = NORMAL",
            f"wal_autocheckpoint = {wal_pages}",
            f"journal_size_limit = {wal_pages * PAGE_SIZE}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        ((application,),) = connection.execute("PRAGMA application_id").fetchall()
        ((version,),) = connection.execute("PRAGMA user_version").fetchall()
        if (application, version) != (APPLICATION_ID, FORMAT):
            raise StoreDamaged("it is not a feature cache, or one of another version")
    except BaseException:
        connection.close()
        raise


def _build(path: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        # The first two have to come before anything is written. Incremental, because
        # only so the file can shrink without being rewritten as a whole.
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.executescript(_SCHEMA)
    finally:
        connection.close()
