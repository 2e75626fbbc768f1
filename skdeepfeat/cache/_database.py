"""The SQLite file: created, opened for one call, quarantined when it is damaged."""

import contextlib
import ctypes
import glob
import os
import pathlib
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from .._utils._forks import before_fork, in_child, undisturbed_by_forks
from .._utils._plain_file import is_special, open_plain
from ._connection import FORMAT, build, connect
from ._directory import CacheDirectory
from ._errors import StoreDamaged, StoreUnavailable, translated
from ._file_lock import hold

_NAME = "features-v{}.sqlite"
# A valid file uses a write-ahead log, so it never has a rollback journal. SQLite would
# undo the changes that a journal contains, and remove a file that it names.
_JOURNAL = "-journal"
_COMPANIONS = ("-wal", "-shm")
_ALL_COMPANIONS = (_JOURNAL, *_COMPANIONS)


class Database:
    """The file that holds the rows, and one connection to it.

    Nothing is read or written before `run` is called. The file is never opened by other
    means than SQLite's: closing any descriptor of it would drop the locks that SQLite's
    own connections of this process hold
    (https://www.sqlite.org/howtocorrupt.html, section 2.2).

    Parameters
    ----------
    directory : CacheDirectory
        Of the file and the locks.
    timeout : float
        Seconds to wait for a lock on the file.
    wal_pages : int
        Pages that the write-ahead log may hold before they are moved to the file.

    Attributes
    ----------
    path : str
        Of the file.
    is_immutable : bool
        Whether it is open without locks and without write-ahead log, because the
        directory is read-only. Another program may then change the file meanwhile.
    was_created : bool
        Whether this object made the file.
    """

    def __init__(self, directory: CacheDirectory, timeout: float, wal_pages: int):
        self.path = os.path.join(directory.path, _NAME.format(FORMAT))
        self.is_immutable = self.was_created = False
        self._directory = directory
        self._timeout = timeout
        self._wal_pages = wal_pages
        self._connection: Any = None  # sqlite3.Connection while it is open
        self._bounds: Any = None
        # (device, inode) of the file that was used last.
        self._identity: tuple[int, int] | None = None
        # Locked while the connection is used, so that no fork closes it meanwhile.
        self._guard = threading.Lock()
        _databases.add(self)

    # -- Using the file

    def run(
        self,
        operation: Callable,
        *arguments: object,
        default: Any = None,
        create: bool = False,
    ) -> Any:
        """Return ``operation(connection, *arguments)``, `default` if there is no file.

        Parameters
        ----------
        operation : callable
        *arguments
        default : object, default=None
        create : bool, default=False
            Make the file if there is none.

        Raises
        ------
        StoreDamaged, StoreUnavailable
            For the errors of SQLite and of the system.
        """
        with undisturbed_by_forks(), self._guard:
            try:
                if not self._open(create):
                    return default
                with self._bounds.hold(self.size):
                    return operation(self._connection, *arguments)
            except StoreDamaged as damage:
                if self.is_immutable:
                    raise StoreUnavailable(f"it is read-only, and {damage}") from damage
                raise
            except StoreUnavailable as error:
                if self._claims_to_be_read_only(error):
                    raise StoreDamaged(error) from error
                raise

    def _claims_to_be_read_only(self, error: StoreUnavailable) -> bool:
        """Return whether a single damaged byte of its header locks the file."""
        effective = os.access in os.supports_effective_ids
        return (
            error.code == sqlite3.SQLITE_READONLY
            and self.is_open
            and not self.is_immutable
            and all(
                os.access(path, os.W_OK, effective_ids=effective)
                for path in (self.path, os.path.dirname(self.path))
            )
        )

    @property
    def is_open(self) -> bool:
        """Whether there is a connection at the moment."""
        return self._connection is not None

    def close(self) -> None:
        """Close the connection. The next `run` opens another one."""
        with undisturbed_by_forks(), self._guard:
            self._disconnect()

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
        self._connection, self.is_immutable = None, False

    def _open(self, create: bool) -> bool:
        """Open the file unless it is open; return whether there is one."""
        if self._connection is not None:
            if self._find() == self._identity:
                return True
            # The file was quarantined by another process or removed by the user. Rows
            # written to the old file would be lost.
            self._disconnect()
        self._directory.check()
        for _ in range(10):
            self._identity = self._find()
            if self._identity is None:
                if not create:
                    return False
                self._create()
                continue
            self._refuse_special()
            # SQLite finds the write-ahead log by name, not by file: if another process
            # renamed it meanwhile, this connection has the log of another.
            if self._connect() and self._find() == self._identity:
                return True
            self._disconnect()
        raise StoreUnavailable("other programs keep replacing it")

    def _find(self) -> tuple[int, int] | None:
        """Return (device, inode) of the file, or None if there is none."""
        with translated():
            try:
                status = os.lstat(self.path)
            except FileNotFoundError:
                return None
        return status.st_dev, status.st_ino

    def _refuse_special(self) -> None:
        """Raise for what would hang, and for what leads to other files."""
        if self._identity in _inherited:
            raise StoreUnavailable(
                "this process was forked while another thread used the file, so only "
                "the parent process can use it"
            )
        if is_special(self.path):
            raise StoreDamaged("it is a link, a folder or a special file")
        if os.path.lexists(self.path + _JOURNAL):
            raise StoreDamaged("the journal next to it belongs to another file")
        for companion in _COMPANIONS:
            if is_special(self.path + companion):
                raise StoreDamaged("its log is a link, a folder or a special file")

    def _connect(self) -> bool:
        uri = pathlib.Path(self.path).absolute().as_uri()
        first_error: StoreUnavailable | None = None
        for is_immutable, mode in ((False, "mode=rw"), (True, "mode=ro&immutable=1")):
            if is_immutable and _size_of(self.path + "-wal"):
                break  # what is in the log would be missing, or incomplete
            try:
                self._connection, self._bounds = connect(
                    f"{uri}?{mode}", self._timeout, self._wal_pages
                )
            except StoreUnavailable as error:
                if self._find() is None:
                    return False
                if error.code not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
                    raise
                first_error = first_error or error
            else:
                self.is_immutable = is_immutable
                return True
        assert first_error is not None  # or the loop would have returned
        raise first_error

    # -- The file as a whole

    def size(self) -> int:
        """Return the bytes on disk, of the file and of what belongs to it."""
        return sum(_size_of(self.path + companion) for companion in ("", *_COMPANIONS))

    def quarantined(self) -> tuple[str, ...]:
        """Return the paths of quarantined damaged files, oldest first."""
        found = sorted(glob.glob(f"{glob.escape(self.path)}.damaged-*"))
        return tuple(path for path in found if not path.endswith(_ALL_COMPANIONS))

    def of_other_formats(self) -> tuple[str, ...]:
        """Return the paths of files that other versions of this package have made."""
        folder = glob.escape(self._directory.path)
        found = sorted(glob.glob(os.path.join(folder, _NAME.format("*"))))
        return tuple(path for path in found if path != self.path)

    def quarantine(self) -> str | None:
        """Rename the file that the last `run` found damaged, if it is still there.

        When one of several processes handles the damage, another process may already
        have replaced the file with a valid one. Other processes that have it open
        continue with it under its new name until their next call.

        Returns
        -------
        str or None
            Its new path; None if another process was faster.

        Raises
        ------
        StoreUnavailable
            If it cannot be renamed.
        """
        with self._locked():
            if self._find() != self._identity:
                return None
            stamp = time.strftime("%Y%m%dT%H%M%S")
            new_path = f"{self.path}.damaged-{stamp}-{secrets.token_hex(4)}"
            # The log first: a file without its log is only older, but a log next to a
            # new file would be replayed into it.
            for companion in _ALL_COMPANIONS:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.path + companion, new_path + companion)
            os.rename(self.path, new_path)
            return new_path

    def _create(self) -> None:
        with self._locked():
            if self._find() is not None:
                return
            # Left by a file that was removed.
            for companion in _ALL_COMPANIONS:
                pathlib.Path(self.path + companion).unlink(missing_ok=True)
            # Other processes never see a file that is not complete.
            scratch = f"{self.path}.new-{secrets.token_hex(8)}"
            try:
                # Not left to SQLite, which gives new files the permissions 0644. The
                # log gets those of the file.
                permissions = self._directory.permissions
                open_plain(scratch, "xb", permissions=permissions).close()
                build(scratch)
                os.rename(scratch, self.path)
                self.was_created = True
            finally:
                for companion in ("", *_ALL_COMPANIONS):
                    pathlib.Path(scratch + companion).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self):
        with hold(self._directory, ["file"], timeout=self._timeout), translated():
            yield


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


# -- Forks
#
# A child must neither use nor close a connection that its parent has opened: it would
# take its parent's locks for its own, and SQLite shares them among all connections of
# a process to one file (https://www.sqlite.org/howtocorrupt.html, section 2.6).

# Databases that may have a connection.
_databases: weakref.WeakSet[Database] = weakref.WeakSet()

# Files, as (device, inode), to which the parent had a connection at the fork.
_inherited: set[tuple[int, int] | None] = set()


@before_fork
def _close_connections() -> None:
    """Close all connections that are not in use. They open again on use."""
    for database in list(_databases):
        if database._guard.acquire(blocking=False):
            try:
                database._disconnect()
            finally:
                database._guard.release()


@in_child
def _abandon_connections() -> None:
    """Never use connections that could not be closed, nor their files."""
    for database in list(_databases):
        if database._connection is not None or database._guard.locked():
            _inherited.add(database._identity)
            # Prevents the garbage collector or the exit from closing it.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(database._connection))
            database._connection = None
