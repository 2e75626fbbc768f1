"""The two kinds of trouble with a store: it is damaged, or it cannot be used now."""

import contextlib
import sqlite3
from collections.abc import Iterator


class StoreDamaged(Exception):
    """The content of the file is not what this package wrote."""

    # Which file it was, (device, inode): by the time one of several processes handles
    # the damage, another one may have replaced the file with a valid one.
    identity: tuple[int, int] | None = None


class StoreUnavailable(Exception):
    """The file cannot be used now, for reasons other than its content.

    Attributes
    ----------
    code : int or None
        SQLite's primary result code.
    """

    code: int | None = None


# Everything that is not listed here counts as damage: a missing table, a value of
# the wrong type, a malformed page.
_NOT_DAMAGE = {
    sqlite3.SQLITE_BUSY: "another program keeps it locked",
    sqlite3.SQLITE_LOCKED: "another program keeps it locked",
    sqlite3.SQLITE_PROTOCOL: "another program keeps it locked",
    sqlite3.SQLITE_PERM: "permission denied",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk refuses to read or write",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_INTERRUPT: "interrupted",
}


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn errors of SQLite and of the system into the two kinds of this module."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        # The lower byte is the kind, the rest of the code a detail of it.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in _NOT_DAMAGE:
            unavailable = StoreUnavailable(f"{_NOT_DAMAGE[code]} ({error})")
            unavailable.code = code
            raise unavailable from error
        raise StoreDamaged(str(error)) from error
    except OSError as error:
        cause = error.strerror or str(error)
        raise StoreUnavailable(cause[:1].lower() + cause[1:]) from error
