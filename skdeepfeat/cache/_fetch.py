"""One fetch: what is known is read, what is not is computed once and stored."""

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._namespace import Namespace

# Seconds of work that kill -9 may cost at most, apart from the current batch.
_COMMIT_INTERVAL = 1.0


class Job:
    """The rows of one fetch.

    The parameters are those of `Store.fetch`, and the number of rows. Rows are
    identified by `wanted`, a dict of key to index in the output.
    """

    def __init__(self, store, namespaces, n_rows, also=None, place=""):
        self.buffers = [OutputBuffer(n_rows) for _ in namespaces]
        self._store = store
        self._namespaces = list(namespaces)
        self._find_also = also
        self._place = place
        # The namespaces that are computed, followed by those of `also`, which have no
        # buffer because they are only stored.
        self._widths = []
        self._pending = []  # (namespace, keys, rows) that wait to be stored
        self._pending_bytes = 0
        self._last_commit = 0.0

    def run(self, wanted: dict[bytes, int], compute: Callable) -> None:
        """Fill the wanted rows of the buffers."""
        missing = self.read(wanted)
        while missing:
            with self._store.hold(self._namespaces, self._place):
                # The process that had the lock before has stored rows meanwhile.
                if not self._store.all_known(self._namespaces, missing):
                    if missing := self.read(missing):
                        self._compute(compute, missing)
                    return
            # Nothing is left to compute, so read without the lock. Rows that are
            # damaged or evicted are computed in another round.
            missing = self.read(missing)

    def read(self, wanted: dict[bytes, int]) -> dict[bytes, int]:
        """Read what is known of the wanted rows; return those that are missing."""
        self._store.read(self._namespaces, wanted, self.buffers)
        indices = np.fromiter(wanted.values(), np.intp, len(wanted))
        is_missing = np.zeros(len(wanted), dtype=bool)
        for buffer in self.buffers:
            is_missing |= ~buffer.filled[indices]
        return dict(itertools.compress(wanted.items(), is_missing.tolist()))

    def settle_widths(self, n_features: Callable) -> None:
        """Allocate the buffers of which no row is filled."""
        empty = [i for i, one in enumerate(self.buffers) if one.n_features is None]
        widths = {i: self._store.n_features(self._namespaces[i]) for i in empty}
        asked = [] if all(widths.values()) else list(n_features())
        for i in empty:
            self.buffers[i].allocate(int(widths[i] or asked[i]))

    def _compute(self, compute: Callable, missing: dict[bytes, int]) -> None:
        key_at = {index: key for key, index in missing.items()}
        indices = np.array(list(key_at), dtype=np.intp)
        for buffer in self.buffers:
            # Images that are missing in any namespace are computed for all.
            buffer.filled[indices] = False
        also = [] if self._find_also is None else list(self._find_also())
        self._widths = [buffer.n_features for buffer in self.buffers]
        self._widths += [self._store.n_features(namespace) for namespace in also]
        self._begin_batch([*self._namespaces, *also])
        with contextlib.ExitStack() as stack:
            batches = compute(indices)
            if hasattr(batches, "close"):
                stack.callback(batches.close)
            stack.callback(self._commit)  # before the close, whatever has happened
            for done, blocks in batches:
                self._take(np.asarray(done, dtype=np.intp), blocks, key_at)
                if (
                    self._pending_bytes >= self._store.limits.commit_bytes
                    or time.monotonic() - self._last_commit >= _COMMIT_INTERVAL
                ):
                    self._commit()

    def _take(self, indices: np.ndarray, blocks: Sequence, key_at: dict) -> None:
        if not key_at.keys() >= set(indices.tolist()):
            raise ValueError("compute yielded rows that it was not asked for.")
        if len(blocks) != len(self._pending):
            raise ValueError(
                f"compute must yield one array for each of {len(self._pending)} "
                f"namespaces. Got {len(blocks)}."
            )
        refused = []
        for k, block in enumerate(blocks):
            namespace, keys, rows = self._pending[k]
            block = np.asarray(block, dtype="<f4")
            _check_block(block, len(indices), self._widths[k], namespace)
            self._widths[k] = block.shape[1]
            self._pending_bytes += block.nbytes
            finite = np.flatnonzero(np.isfinite(block).all(axis=1))
            stored = indices[finite].tolist()
            keys.extend(map(key_at.__getitem__, stored))
            if k >= len(self.buffers):
                rows.extend(block[finite])  # a copy: the block may be used again
                continue
            if len(finite) < len(block):
                refused.append(namespace.label)
                block = block[finite]
            rows.extend(self.buffers[k].put(indices[finite], block))
        if refused:
            raise ValueError(
                "compute must yield finite rows and leave out the positions that "
                f"failed. It yielded NaN or infinite values for {refused[0]!r}."
            )

    def _commit(self) -> None:
        batch = self._pending
        self._begin_batch([namespace for namespace, _, _ in batch])
        if any(keys for _, keys, _ in batch):
            self._store.write(batch)
            self._last_commit = time.monotonic()

    def _begin_batch(self, namespaces: list[Namespace]) -> None:
        self._pending = [(namespace, [], []) for namespace in namespaces]
        self._pending_bytes = 0
        self._last_commit = time.monotonic()


def _check_block(
    block: np.ndarray, n_rows: int, width: int | None, namespace: Namespace
) -> None:
    if block.ndim != 2 or len(block) != n_rows:
        raise ValueError(
            f"compute must yield arrays of shape ({n_rows}, n_features) for "
            f"{n_rows} rows. Got shape {block.shape} for {namespace.label!r}."
        )
    if width not in (None, block.shape[1]):
        raise ValueError(
            f"Rows of {namespace.label!r} have {width} columns in the cache, and "
            f"compute yielded {block.shape[1]}. The description of a namespace must "
            "change with everything that changes the network. Remove the old rows "
            "with FeatureCache.clear()."
        )


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
        self.n_features: int | None = None
        self._array: Any = None
        self._bytes: memoryview | None = None
        self._row_bytes = 0

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

    def put(self, indices: np.ndarray, block: np.ndarray) -> list[np.ndarray]:
        """Fill rows from an array of shape (len(indices), n_features).

        Returns
        -------
        list of ndarray
            The rows as buffers of little-endian float32.
        """
        if self._array is None:
            self.allocate(block.shape[1])
        self._array[indices] = block
        self.filled[indices] = True
        return [self._array[index] for index in indices.tolist()]

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
