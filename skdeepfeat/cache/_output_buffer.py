"""The output of one namespace, filled row by row in any order."""

import numpy as np

__all__ = ["Sheet"]


class Sheet:
    """Rows of features of which not even the number of columns is known at first.

    Rows are written straight to their place: the array is the only copy of them.

    Parameters
    ----------
    n_rows : int

    Attributes
    ----------
    filled : ndarray of bool, shape (n_rows,)
    """

    def __init__(self, n_rows: int):
        self._n_rows = n_rows
        self._flags = bytearray(n_rows)
        self.filled = np.frombuffer(self._flags, dtype=bool)
        self._array = None
        self._bytes = None
        self._row_bytes = None

    @property
    def n_features(self) -> int | None:
        """Number of columns, or None as long as it is not known."""
        return None if self._array is None else self._array.shape[1]

    def allocate(self, n_features: int) -> None:
        """Settle the number of columns."""
        # Little-endian as stored. Not filled with NaN, which would take as long as
        # reading the rows: `finish` does that where no row came.
        self._array = np.empty((self._n_rows, n_features), dtype="<f4")
        self._row_bytes = 4 * n_features
        if self._array.size:
            self._bytes = memoryview(self._array).cast("B")

    def put_bytes(self, row: int, data: bytes) -> bool:
        """Fill a row from its stored form; return whether it fits."""
        if self._array is None and len(data) % 4 == 0:
            self.allocate(len(data) // 4)
        if self._bytes is None or len(data) != self._row_bytes:
            return False
        start = row * self._row_bytes
        self._bytes[start : start + self._row_bytes] = data
        self._flags[row] = True
        return True

    def put(self, rows: np.ndarray, block: np.ndarray) -> None:
        """Fill rows from an array of shape (len(rows), n_features)."""
        if self._array is None:
            self.allocate(block.shape[1])
        self._array[rows] = block
        self.filled[rows] = True

    def stored_form(self, row: int) -> np.ndarray:
        """Return a filled row as a buffer of little-endian float32."""
        return self._array[row]

    def finish(self, source: np.ndarray | None) -> np.ndarray:
        """Return the array, with NaN in rows that were never filled.

        Parameters
        ----------
        source : ndarray of int, shape (n_rows,), or None
            The row that each row is a copy of.
        """
        if source is not None:
            twins = np.flatnonzero(source != np.arange(self._n_rows))
            twins = twins[self.filled[source[twins]]]
            self._array[twins] = self._array[source[twins]]
            self.filled[twins] = True
        self._array[~self.filled] = np.nan
        return self._array.astype(np.float32, copy=False)
