"""What may go wrong with a store: within this package, and as users are told."""

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Mapping

from .._utils._printable import printable, redacted
from .._utils._warn import warn
from ..exceptions import CacheWarning

logger = logging.getLogger(__name__)


class StoreDamaged(Exception):
    """The content of the file is not what this package wrote."""


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
        # The lower byte of the code is the kind of error, and the rest is a detail.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in _NOT_DAMAGE:
            unavailable = StoreUnavailable(f"{_NOT_DAMAGE[code]} ({error})")
            unavailable.code = code
            raise unavailable from error
        raise StoreDamaged(str(error)) from error
    except OSError as error:
        cause = error.strerror or str(error)
        raise StoreUnavailable(cause[:1].lower() + cause[1:]) from error


class StoreWarnings:
    """Warns of each kind of trouble once.

    Parameters
    ----------
    path : str
        The store, as messages name it.
    quiet : bool, default=False
        Only log that the store cannot be used.
    secrets : mapping, default=()
        Options whose values are not shown.
    """

    def __init__(self, path: str, quiet: bool = False, secrets: Mapping | tuple = ()):
        self._path = path
        self._quiet = quiet
        self._secrets = secrets
        self._said: set[str] = set()

    def unusable(self, cause: object) -> None:
        """Say that rows cannot be read or stored."""
        self._warn(
            "unusable",
            f"The feature cache {self._path} cannot be used as requested: {cause}. The "
            "results are correct, but features that could not be stored will be "
            "computed again next time. Make sure that the cache can be read and "
            "written, choose another one with cache=PATH or the environment variable "
            "SKDEEPFEAT_CACHE_DIR, or set cache=None to work without a cache.",
            str(cause),
        )

    def quarantined(self, new_path: str, cause: object) -> None:
        """Say that a file was found damaged or foreign, and where it is now."""
        self._warn(
            "quarantined",
            f"The feature cache {self._path} cannot be read: {cause}. It was "
            f"quarantined as {new_path}, and a new one was created. Its features will "
            "be computed again. The old file can be deleted unless you need it.",
        )

    def damaged_rows(self, n_rows: int) -> None:
        """Say that rows failed their checksums."""
        self._warn(
            "damaged rows",
            f"{n_rows} rows of the feature cache {self._path} are damaged (their "
            "checksums do not match). They are computed again and replaced. If this "
            "happens again, the disk may be failing. The check() method of the cache "
            "examines all rows.",
        )

    def too_small(self, limit: str) -> None:
        """Say that one job needs more space than the whole cache may take."""
        self._warn(
            "too small",
            f"The feature cache {self._path} may take {limit}, which is too small for "
            "this job alone. Some of its rows are not stored and will be computed "
            "again next time. Raise the limit: cache=FeatureCache(max_size=...).",
        )

    def _warn(self, kind: str, message: str, cause: str | None = None) -> None:
        message = redacted(printable(redacted(message, self._secrets)))
        if self._quiet and cause is not None:
            logger.debug(message)
        elif kind not in self._said:
            self._said.add(kind)
            warn(CacheWarning(message, cause))
