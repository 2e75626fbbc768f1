"""A connection to the cache file, which may come from a stranger.

Its pages may form a cycle, so that a query never ends, and SQLite does not react to
Ctrl-C while it runs. It may have triggers, computed columns, or a view that never ends
instead of a table. So what SQLite may do is limited, and a file is used only if its
schema is exactly what this package writes.
"""

import contextlib
import functools
import sqlite3
from collections.abc import Callable, Iterator

from ._errors import StoreDamaged, StoreUnavailable, translated

# In the file's name too, so that two versions of this package with different
# formats do not quarantine each other's files. It must change with the statements.
FORMAT = 3
APPLICATION_ID = 0x736B6466  # "skdf"
# Rows are several kilobytes: pages of 4 KiB read 1.7 times slower.
PAGE_SIZE = 65536

_STATEMENTS = (
    """CREATE TABLE namespaces (
    id INTEGER PRIMARY KEY, key TEXT UNIQUE, label TEXT, description TEXT,
    used INTEGER)""",
    """CREATE TABLE rows (
    id INTEGER PRIMARY KEY, namespace INTEGER, key BLOB, crc INTEGER, data BLOB)""",
    "CREATE UNIQUE INDEX rows_by_key ON rows (namespace, key)",
    """CREATE TABLE variants (
    id INTEGER PRIMARY KEY, namespace TEXT, name TEXT, key TEXT, crc INTEGER,
    seen INTEGER, data BLOB)""",
    "CREATE INDEX variants_by_namespace ON variants (namespace)",
    "CREATE TABLE used (id INTEGER PRIMARY KEY, used INTEGER, bytes INTEGER)",
    "CREATE INDEX used_by_time ON used (used)",
    """CREATE TABLE files (
    key BLOB PRIMARY KEY, digest BLOB, crc INTEGER, seen INTEGER
) WITHOUT ROWID""",
)
_OBJECTS = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name LIMIT ?"
_ROOTS = "SELECT rootpage FROM sqlite_master LIMIT ?"
# Of a file, in the order in which they must be set: the first two before anything is
# written. Only with incremental vacuum (2) can the file shrink without being rewritten
# as a whole.
_PRAGMAS = (
    ("page_size", PAGE_SIZE),
    ("auto_vacuum", 2),
    ("application_id", APPLICATION_ID),
    ("user_version", FORMAT),
)

# Bytes of a value, such as a row: 33 million features.
MAX_VALUE = 2**27
# Steps of SQLite's virtual machine between two checks of the limit and of Ctrl-C: about
# a millisecond.
_INTERVAL = 50_000
# Steps for opening a file, which takes some hundred, and for any operation on it: about
# a second. A valid file's rows take less than a step for each of their bytes.
_TO_OPEN = 1_000_000
_TO_USE = 50_000_000

_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_VALUE,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 100_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
}

# Of each connection. The cache of pages is in KiB. Rows are read in the order of the
# file, each page once, and a larger cache only costs the time to fill fresh memory.
_SETTINGS = (
    "cache_size = -8192",
    "cell_size_check = ON",  # notices more kinds of damage
    "trusted_schema = OFF",  # the file may come from anywhere
    "temp_store = MEMORY",
    # Debian's SQLite overwrites deleted rows with zeros: eviction would write as much
    # as it frees.
    "secure_delete = OFF",
    # A commit survives kill -9. The last seconds may not survive a power failure, which
    # only means that they are computed again.
    "synchronous = NORMAL",
)


def build(path: str) -> None:
    """Make the tables in an empty file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name, value in _PRAGMAS:
            connection.execute(f"PRAGMA {name} = {value}")
        connection.execute("PRAGMA journal_mode = WAL")
        for statement in _STATEMENTS:
            connection.execute(statement)


def connect(
    uri: str, timeout: float, wal_pages: int
) -> tuple[sqlite3.Connection, "Bounds"]:
    """Open a file that `build` has created; raise `StoreDamaged` for any other file.

    Parameters
    ----------
    uri : str
    timeout : float
        Seconds to wait for a lock on the file.
    wal_pages : int
        Pages that the write-ahead log may hold before they are moved to the file.

    Raises
    ------
    StoreDamaged, StoreUnavailable
    """
    with translated():
        connection = sqlite3.connect(
            uri,
            uri=True,
            timeout=timeout,
            isolation_level=None,
            cached_statements=32,
            # Before a fork, whichever thread forks closes it.
            check_same_thread=False,
        )
    bounds = Bounds(connection)
    # Labels of a damaged file need not be UTF-8.
    connection.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
    try:
        with bounds.hold():
            for pragma in (
                *_SETTINGS,
                f"wal_autocheckpoint = {wal_pages}",
                f"journal_size_limit = {wal_pages * PAGE_SIZE}",
            ):
                connection.execute(f"PRAGMA {pragma}")
            for name, value in _PRAGMAS:
                if connection.execute(f"PRAGMA {name}").fetchone() != (value,):
                    raise StoreDamaged(
                        "it is not a feature cache, or one of another version"
                    )
            expected = _expected()
            limit = len(expected) + 1
            if connection.execute(_OBJECTS, (limit,)).fetchall() != expected:
                raise StoreDamaged("its tables are not those of a feature cache")
            if len(set(connection.execute(_ROOTS, (limit,)))) < len(expected):
                raise StoreDamaged("its tables share their pages")
    except BaseException:
        connection.close()
        raise
    return connection, bounds


@functools.cache
def _expected() -> list[tuple]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statement in _STATEMENTS:
            connection.execute(statement)
        return connection.execute(_OBJECTS, (-1,)).fetchall()


class Bounds:
    """Bounds on one connection.

    Parameters
    ----------
    connection : sqlite3.Connection
    """

    def __init__(self, connection: sqlite3.Connection):
        self._intervals = 0
        self._interruption: BaseException | None = None
        self._file_size: Callable[[], int] | None = None
        for limit, value in _LIMITS.items():
            connection.setlimit(limit, value)
        connection.set_progress_handler(self._look, _INTERVAL)

    def _look(self) -> bool:
        # sqlite3 drops exceptions that are raised here, such as the KeyboardInterrupt
        # of a signal handler.
        try:
            self._intervals -= 1
            if self._intervals < 0 and self._file_size is not None:
                self._intervals += self._file_size() // _INTERVAL
                self._file_size = None
            return self._intervals < 0
        except BaseException as interruption:
            self._interruption = interruption
            return True

    @contextlib.contextmanager
    def hold(self, file_size: Callable[[], int] | None = None) -> Iterator[None]:
        """Limit the steps of the body of a ``with``, and translate its errors.

        Parameters
        ----------
        file_size : callable or None, default=None
            Returns the bytes of the file that is used; None for opening it.

        Raises
        ------
        StoreDamaged
            If it is not done within the bounds.
        """
        self._file_size = file_size
        self._intervals = (_TO_OPEN if file_size is None else _TO_USE) // _INTERVAL
        try:
            with translated():
                yield
        except StoreUnavailable as error:
            if error.code != sqlite3.SQLITE_INTERRUPT:
                raise
            interruption, self._interruption = self._interruption, None
            if self._intervals >= 0:
                # Raised just before or after the `try` of `_look`, if it is not here.
                raise (interruption or KeyboardInterrupt()) from None
            raise StoreDamaged(
                "a query on it did not end within its limit of steps"
            ) from error
