"""Limits on what SQLite may do with a file, which may come from a stranger.

A file's pages may form a cycle, so that a query never ends, and SQLite does not react
to Ctrl-C while it runs.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator

from ._errors import StoreDamaged, StoreUnavailable, translated

# Bytes of a value, such as a row: 33 million features.
MAX_VALUE = 2**27
# Steps of SQLite's virtual machine between two looks at the bound and at Ctrl-C: about
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
        # sqlite3 drops what is raised here, such as KeyboardInterrupt by a handler of
        # signals.
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
                # Raised just before or behind the `try` of `_look`, if it is not here.
                raise (interruption or KeyboardInterrupt()) from None
            raise StoreDamaged(
                "a query on it did not end within its limit of steps"
            ) from error
