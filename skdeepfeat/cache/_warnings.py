"""What can be wrong with the store, and saying it once."""

import contextlib
import logging
import sqlite3
import warnings
from collections.abc import Iterator

from .._utils._printable import printable, redacted
from .._utils._stacklevel import caller_stacklevel
from ..exceptions import CacheWarning

__all__ = [
    "Faults",
    "StoreDamaged",
    "StoreUnavailable",
    "translated",
]

logger = logging.getLogger(__name__)


class StoreDamaged(Exception):
    """The file's content is not what this package wrote."""

    # Which file it was, (device, inode): by the time one of several processes acts on
    # the damage, another one may have put a sound file in its place.
    identity: tuple[int, int] | None = None


class StoreUnavailable(Exception):
    """The file cannot be used now, for reasons that are not in its content.

    Attributes
    ----------
    code : int or None
        SQLite's primary result code.
    """

    code: int | None = None


# Everything that is not listed here is taken for damage: a missing table, a value of
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
    """Turn the errors of SQLite and of the system into the two kinds that matter."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        # The lower byte is the kind, the rest of the code a detail of it.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in _NOT_DAMAGE:
            fault = StoreUnavailable(f"{_NOT_DAMAGE[code]} ({error})")
            fault.code = code
            raise fault from error
        raise StoreDamaged(str(error)) from error
    except OSError as error:
        cause = error.strerror or str(error)
        raise StoreUnavailable(cause[:1].lower() + cause[1:]) from error


class Faults:
    """Warns of each kind of trouble once.

    Parameters
    ----------
    quiet : bool, default=False
        Only log that the store is unusable. For helpers of a job that will meet the
        same trouble, and say so, anyway.
    """

    def __init__(self, quiet: bool = False):
        self._quiet = quiet
        self._said = set()

    def unusable(self, path: str, cause: object) -> None:
        """Say that rows can not be read or kept."""
        message = (
            f"The feature cache {path} is not used as asked: {cause}. Results are "
            "right, but what could not be stored will be computed again next time. "
            "Free the file or the disk, or choose another directory with "
            "cache=PATH or the environment variable SKDEEPFEAT_CACHE_DIR; cache=None "
            "does without."
        )
        if self._quiet:
            logger.debug(message)
        else:
            self._warn("unusable", message, str(cause))

    def set_aside(self, path: str, aside: str, cause: object) -> None:
        """Say that a file was found damaged or foreign, and where it is now."""
        self._warn(
            "set aside",
            f"The feature cache {path} cannot be read: {cause}. It was quarantined as "
            f"{aside} and a new one begun; its rows will be computed again. Delete the "
            "old file if nothing in it matters to you.",
        )

    def damaged_rows(self, path: str, n_rows: int) -> None:
        """Say that rows failed their checksums."""
        self._warn(
            "damaged rows",
            f"{n_rows} rows of the feature cache {path} are damaged (their checksums "
            "do not match). They are computed again and replaced. If this comes back, "
            "the disk may be failing; FeatureCache.check() examines the whole file.",
        )

    def too_small(self, path: str, limit: str) -> None:
        """Say that one job needs more room than the whole cache may take."""
        self._warn(
            "too small",
            f"The feature cache {path} may take {limit}, which is too small for "
            "this job alone: a part of its rows is not stored and will be computed "
            "again next time. Raise the limit: cache=FeatureCache(max_size=...).",
        )

    def _warn(self, kind: str, message: str, cause: str | None = None) -> None:
        if kind not in self._said:
            self._said.add(kind)
            warning = CacheWarning(redacted(printable(message)), cause)
            warnings.warn(warning, stacklevel=caller_stacklevel() + 1)
