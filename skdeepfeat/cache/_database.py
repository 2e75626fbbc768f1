"""The SQLite file: made whole, opened for one call, quarantined when it is damaged."""

import contextlib
import dataclasses
import os
import pathlib
import secrets
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator

from .._utils._plain_file import is_special, open_plain
from . import _schema
from ._bounds import Bounds
from ._faults import StoreDamaged, StoreUnavailable, translated
from ._file_lock import hold
from ._place import Place
from ._schema import APPLICATION_ID, FORMAT, PAGE_SIZE

__all__ = ["Database", "Handle"]

# The first is never there, as the file has a write-ahead log. SQLite would take what it
# finds in one for changes to undo, and for the name of a file to remove.
_JOURNAL = "-journal"
_COMPANIONS = ("-wal", "-shm")


@dataclasses.dataclass
class Handle:
    """An open connection, and which file it is open on."""

    connection: sqlite3.Connection
    identity: tuple[int, int]
    # Opened without locks and without write-ahead log, because the directory is
    # read-only. Another program may then change the file under our eyes.
    frozen: bool
    bounds: Bounds
    size: Callable[[], int]

    @contextlib.contextmanager
    def use(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for the body of a ``with``, within bounds.

        Raises
        ------
        StoreDamaged, StoreUnavailable
            For the errors of SQLite.
        """
        with self.bounds.hold(self.size):
            yield self.connection

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
    place : Place
        Where the file and the locks are.
    timeout : float
        Seconds to wait for a lock on the file.
    wal_pages : int
        Pages that the write-ahead log may hold before they are moved to the file.
    """

    def __init__(self, place: Place, timeout: float, wal_pages: int):
        self.path = os.path.join(place.directory, f"features-v{FORMAT}.sqlite")
        self.place = place
        self._timeout = timeout
        self._wal_pages = wal_pages

    def identity(self) -> tuple[int, int] | None:
        """Return (device, inode) of the file, or None where there is none."""
        status = self._status()
        return None if status is None else (status.st_dev, status.st_ino)

    def _status(self) -> os.stat_result | None:
        with translated():
            try:
                return os.lstat(self.path)
            except FileNotFoundError:
                return None

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
        """Return the paths of quarantined damaged files, oldest first."""
        directory, name = os.path.split(self.path)
        try:
            names = os.listdir(directory)
        except OSError:
            return []
        return [
            os.path.join(directory, other)
            for other in sorted(names)
            if other.startswith(f"{name}.damaged-")
            and not other.endswith((_JOURNAL, *_COMPANIONS))
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
        self.place.check()
        self.place.tighten()
        for _ in range(10):
            status = self._status()
            if status is None:
                if not create:
                    return None
                self._create()
                continue
            identity = status.st_dev, status.st_ino
            try:
                self._refuse_special(status)
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

    def _refuse_special(self, status: os.stat_result) -> None:
        """Raise for what would hang, and for what leads to other files."""
        if not stat.S_ISREG(status.st_mode):
            raise StoreDamaged("it is a link, a folder or a special file")
        if os.path.lexists(self.path + _JOURNAL):
            raise StoreDamaged("the journal next to it belongs to another file")
        for companion in _COMPANIONS:
            if is_special(self.path + companion):
                raise StoreDamaged("its log is a link, a folder or a special file")

    def _connect(self, identity: tuple[int, int]) -> Handle | None:
        uri = pathlib.Path(self.path).absolute().as_uri()
        first_fault = None
        for frozen, mode in ((False, "mode=rw"), (True, "mode=ro&immutable=1")):
            if frozen and _size_of(self.path + "-wal"):
                break  # what is in the log would be missing, or half there
            try:
                with translated():
                    connection = _connection(f"{uri}?{mode}", self._timeout)
                bounds = Bounds(connection)
                with bounds.hold():
                    _prepare(connection, self._wal_pages)
            except StoreUnavailable as fault:
                if self.identity() is None:
                    return None
                if fault.code not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                    raise
                first_fault = first_fault or fault
            else:
                return Handle(connection, identity, frozen, bounds, self.size)
        raise first_fault

    def _create(self) -> None:
        with hold(self.place, ["file"], timeout=self._timeout), translated():
            if self.identity() is not None:
                return
            # Left by a file that somebody removed.
            for companion in (_JOURNAL, *_COMPANIONS):
                pathlib.Path(self.path + companion).unlink(missing_ok=True)
            # Nobody sees a file that is not complete.
            scratch = f"{self.path}.new-{secrets.token_hex(8)}"
            try:
                # Not left to SQLite, which gives new files the permissions 0644. The
                # log has those of the file.
                permissions = self.place.permissions
                open_plain(scratch, "xb", permissions=permissions).close()
                _build(scratch)
                os.rename(scratch, self.path)
            finally:
                for companion in ("", _JOURNAL, *_COMPANIONS):
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
        with hold(self.place, ["file"], timeout=self._timeout), translated():
            if self.identity() != identity:
                return None
            stamp = time.strftime("%Y%m%dT%H%M%S")
            aside, n = f"{self.path}.damaged-{stamp}", 1
            while os.path.lexists(aside):
                n += 1
                aside = f"{self.path}.damaged-{stamp}-{n}"
            # The log first: a file without its log is merely older, a log beside a
            # new file would be replayed into it.
            for companion in (_JOURNAL, *_COMPANIONS):
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
        uri,
        uri=True,
        timeout=timeout,
        isolation_level=None,
        cached_statements=32,
        # Before a fork, whichever thread forks closes it.
        check_same_thread=False,
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
        _schema.check(connection)
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
        _schema.build(connection)
    finally:
        connection.close()
