"""One fetch: what is known is read, what is not is computed once and stored."""

import contextlib
import time
from collections.abc import Callable, Sequence

import numpy as np

from ._namespace import Namespace
from ._null_store import NullStore
from ._sheet import Sheet
from ._store import Store

__all__ = ["fetch_rows"]

# Seconds of work that kill -9 may cost at most, besides the batch in the making.
_COMMIT_INTERVAL = 1.0


def fetch_rows(
    store: Store | NullStore,
    namespaces: Sequence[Namespace],
    keys: Sequence[bytes | None],
    compute: Callable,
    n_features: Callable,
    also: Callable | None = None,
    place: str = "",
) -> list[np.ndarray]:
    """Return rows from the store, and from `compute` where the store lacks them.

    The parameters are those of `FeatureCache.fetch`, and a store.
    """
    namespaces, n_rows = list(namespaces), len(keys)
    first = {}
    for row, key in enumerate(keys):
        if key is not None:
            first.setdefault(key, row)
    job = _Job(store, namespaces, [Sheet(n_rows) for _ in namespaces], also, place)
    job.run(list(first), list(first.values()), compute)
    _settle_widths(store, job, n_features)
    store.finish()
    source = None
    if len(first) < n_rows:
        source = np.array([first.get(key, i) for i, key in enumerate(keys)], np.intp)
    return [sheet.finish(source) for sheet in job.sheets]


def _settle_widths(store: Store, job: "_Job", n_features: Callable) -> None:
    for namespace, sheet in zip(job.namespaces, job.sheets, strict=True):
        if sheet.n_features is None and (width := store.n_features(namespace)):
            sheet.allocate(width)
    if any(sheet.n_features is None for sheet in job.sheets):
        widths = list(n_features())
        for sheet, width in zip(job.sheets, widths, strict=True):
            if sheet.n_features is None:
                sheet.allocate(int(width))


class _Job:
    """The rows of one fetch on their way."""

    def __init__(
        self,
        store: Store | NullStore,
        namespaces: list[Namespace],
        sheets: list[Sheet],
        also: Callable | None,
        place: str,
    ):
        self.store = store
        self.namespaces = namespaces
        self.sheets = sheets
        self._find_also = also
        self._place = place
        self._key_at = {}
        # What is computed: for the sheets and, from `_compute` on, for the store only.
        # These have no sheet to tell how long their rows are.
        self._computed = namespaces
        self._also_widths = []
        # For each of these, rows that wait to be stored: their places, and buffers.
        self._pending = [([], []) for _ in namespaces]
        self._pending_bytes = 0
        self._last_commit = time.monotonic()

    def run(self, keys: list[bytes], rows: list[int], compute: Callable) -> None:
        """Fill the sheets' `rows`, which belong to the distinct `keys`."""
        self._key_at = dict(zip(rows, keys, strict=True))
        self._read(rows)
        missing = self._missing(rows)
        while missing:
            with self.store.hold(self.namespaces, self._place):
                # Whoever held the lock before has stored rows meanwhile.
                if not self.store.all_known(self.namespaces, self._keys(missing)):
                    self._read(missing)
                    if missing := self._missing(missing):
                        self._compute(compute, np.array(missing, dtype=np.intp))
                    return
            # Nothing left to compute: read without keeping others waiting. What
            # turns out damaged or evicted is seen to in another round.
            self._read(missing)
            missing = self._missing(missing)

    def _keys(self, rows: list[int]) -> list[bytes]:
        return [self._key_at[row] for row in rows]

    def _missing(self, rows: list[int]) -> list[int]:
        lacking = np.zeros(len(rows), dtype=bool)
        for sheet in self.sheets:
            lacking |= ~sheet.filled[rows]
        return [rows[i] for i in np.flatnonzero(lacking)]

    def _read(self, rows: list[int]) -> None:
        self.store.read(self.namespaces, self._keys(rows), rows, self.sheets)

    def _compute(self, compute: Callable, missing: np.ndarray) -> None:
        for sheet in self.sheets:
            # Known in one namespace, missing in another: all or nothing.
            sheet.filled[missing] = False
        wanted = set(missing.tolist())
        if self._find_also is not None:
            also = list(self._find_also())
            self._computed = [*self.namespaces, *also]
            self._also_widths = [self.store.n_features(one) for one in also]
            self._pending = [([], []) for _ in self._computed]
        self._last_commit = time.monotonic()
        with contextlib.ExitStack() as stack:
            batches = compute(missing)
            if hasattr(batches, "close"):
                stack.callback(batches.close)
            stack.callback(self._commit)  # before the close, whatever has happened
            for indices, blocks in batches:
                self._take(np.asarray(indices, dtype=np.intp), blocks, wanted)
                if self._is_time_to_commit():
                    self._commit()

    def _take(self, indices: np.ndarray, blocks: Sequence, wanted: set[int]) -> None:
        if not wanted.issuperset(indices.tolist()):
            raise ValueError("compute yielded rows that it was not asked for.")
        if len(blocks) != len(self._computed):
            raise ValueError(
                f"compute must yield one array for each of {len(self._computed)} "
                f"namespaces. Got {len(blocks)}."
            )
        refused = []
        for k, block in enumerate(blocks):
            block = np.asarray(block, dtype="<f4")
            _check_block(block, len(indices), self._width(k), self._computed[k])
            finite = np.flatnonzero(np.isfinite(block).all(axis=1))
            rows, buffers = self._pending[k]
            rows.extend(indices[finite].tolist())
            if k < len(self.sheets):
                if len(finite) < len(block):
                    refused.append(self._computed[k].label)
                    block = block[finite]
                self.sheets[k].put(indices[finite], block)
                buffers.extend(
                    map(self.sheets[k].stored_form, indices[finite].tolist())
                )
            else:
                self._also_widths[k - len(self.sheets)] = block.shape[1]
                buffers.extend(block[finite])  # a copy: the block may be used again
            self._pending_bytes += block.nbytes
        if refused:
            raise ValueError(
                "compute must yield finite rows and leave out the positions that "
                f"failed. It yielded NaN or infinite values for {refused[0]!r}."
            )

    def _width(self, k: int) -> int | None:
        n_sheets = len(self.sheets)
        if k < n_sheets:
            return self.sheets[k].n_features
        return self._also_widths[k - n_sheets]

    def _is_time_to_commit(self) -> bool:
        return (
            self._pending_bytes >= self.store.limits.commit_bytes
            or time.monotonic() - self._last_commit >= _COMMIT_INTERVAL
        )

    def _commit(self) -> None:
        pending, self._pending = self._pending, [([], []) for _ in self._computed]
        if any(rows for rows, _ in pending):
            self.store.write(
                self._computed,
                [self._keys(rows) for rows, _ in pending],
                [buffers for _, buffers in pending],
            )
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
            f"Rows of {namespace.label!r} have {width} columns in the "
            "cache: its description must change with whatever changes the network, "
            f"or clear it with FeatureCache.clear(). compute yielded {block.shape[1]}."
        )
