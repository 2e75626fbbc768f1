"""The output of one namespace, filled row by row in any order."""

import numpy as np

__all__ = ["OutputBuffer"]


class OutputBuffer:
    """Rows of features whose number of columns need not be known at first.

    Rows are written straight to their place: the array is the only copy of them.

    Parameters
    ----------
    n_rows : int

    Attributes
    ----------
    filled : ndarray of bool, shape (n_rows,)
    n_features : int or None
        Number of columns, or None as long as it is not known.
    """

    def __init__(self, n_rows: int):
        self._n_rows = n_rows
        self._flags = bytearray(n_rows)
        self.filled = np.frombuffer(self._flags, dtype=bool)
        self.n_features = None
        self._array = self._bytes = None
        self._row_bytes = None

    def allocate(self, n_features: int) -> None:
        """Set the number of columns."""
        self.n_features = n_features
        self._row_bytes = 4 * n_features
        # Little-endian as stored. Not filled with NaN, which would take as long as
        # reading the rows: `finish` does that for rows that were never filled.
        self._array = np.empty((self._n_rows, n_features), dtype="<f4")
        if self._array.size:
            self._bytes = memoryview(self._array).cast("B")

    def put_bytes(self, index: int, data: bytes) -> bool:
        """Fill a row from its stored form; return whether it fits."""
        if self._array is None and len(data) % 4 == 0:
            self.allocate(len(data) // 4)
        if self._bytes is None or len(data) != self._row_bytes:
            return False
        start = index * self._row_bytes
        self._bytes[start : start + self._row_bytes] = data
        self._flags[index] = True
        return True

    def put(self, indices: np.ndarray, block: np.ndarray) -> None:
        """Fill rows from an array of shape (len(indices), n_features)."""
        if self._array is None:
            self.allocate(block.shape[1])
        self._array[indices] = block
        self.filled[indices] = True

    def stored_form(self, index: int) -> np.ndarray:
        """Return a filled row as a buffer of little-endian float32."""
        return self._array[index]

    def finish(self, source: np.ndarray | None) -> np.ndarray:
        """Return the array, with NaN in rows that were never filled.

        Parameters
        ----------
        source : ndarray of int, shape (n_rows,), or None
            The index of the row that each row is a copy of.
        """
        if source is not None:
            duplicates = np.flatnonzero(source != np.arange(self._n_rows))
            duplicates = duplicates[self.filled[source[duplicates]]]
            self._array[duplicates] = self._array[source[duplicates]]
            self.filled[duplicates] = True
        self._array[~self.filled] = np.nan
        return self._array.astype(np.float32, copy=False)
