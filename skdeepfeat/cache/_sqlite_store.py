"""The store in an SQLite file, which `FeatureCache` opens."""

import contextlib
import logging
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .._utils._shown import shown_path
from . import _eviction, _file_index, _rows, _sqlite_audit, _variants
from ._database import Database
from ._directory import CacheDirectory
from ._errors import StoreDamaged, StoreUnavailable, StoreWarnings
from ._file_lock import hold_device_lock
from ._namespace import Namespace, is_valid, seed_of
from ._reports import CacheInfo, CheckReport
from ._side_files import PrivateFiles, SideFiles
from ._size import Limits, format_size
from ._store import Store

logger = logging.getLogger(__name__)


class SQLiteStore(Store):
    """The rows in one directory; see `Store`.

    Parameters
    ----------
    directory : CacheDirectory
    max_bytes : int or None
        What the cache may take; None for no limit.
    timeout : float
        Seconds to wait for another program's lock on the file.
    clock : callable
        Returns seconds since the epoch.
    quiet : bool, default=False
        Only log that the file cannot be used.
    """

    keeps_rows = True

    def __init__(
        self,
        directory: CacheDirectory,
        max_bytes: int | None,
        *,
        timeout: float,
        clock: Callable[[], float],
        quiet: bool = False,
    ):
        self.directory = directory
        self.converted = PrivateFiles(directory, max_bytes)
        self.notes = SideFiles(directory)
        self.limits = Limits(max_bytes, reserved=self.converted.size())
        self.database = Database(directory, timeout, self.limits.wal_pages)
        self.path = self.database.path
        self.warnings = StoreWarnings(self.path, quiet)
        self._clock = clock
        self._announces = directory.is_default and not quiet
        # Upper bound of the number of stored file digests; None if not counted yet.
        self._n_files: int | None = None
        self._forget_job()

    def _forget_job(self):
        super()._forget_job()
        self._wrote = self._is_full = False
        self._damaged = set()  # (namespace key, key) of rows
        # Ids of rows that this job has read and written. It does not evict them.
        self._hits: list[tuple[Namespace, np.ndarray]] = []
        self._written: list[range] = []

    def close(self):
        self.database.close()

    # -- Rows

    def read(self, namespaces, wanted, buffers):
        def copy(connection):
            with _rows.transaction(connection):
                # As arrays, because there may be millions.
                index = np.fromiter(wanted.values(), np.int64, len(wanted))
                found = []
                for namespace in namespaces:
                    ids = _rows.find_ids(connection, namespace, wanted)
                    if len(ids) < len(wanted):
                        is_found = map(ids.__contains__, index.tolist())
                        index = index[np.fromiter(is_found, bool, len(index))]
                    found.append(ids)
                key_at = [b""] * (max(wanted.values(), default=-1) + 1)
                for key, place in wanted.items():
                    key_at[place] = key
                for each in zip(namespaces, found, buffers, strict=True):
                    namespace, ids, buffer = each
                    numbers = map(ids.__getitem__, index.tolist())
                    known = np.fromiter(numbers, np.int64, len(index))
                    order = np.argsort(known, kind="stable")
                    rows = (known[order], index[order])
                    damaged = _copy(connection, namespace, *rows, key_at, buffer)
                    self._damaged.update((namespace.key, key) for key in damaged)
                    self._hits.append((namespace, known[order]))

        before = len(self._damaged)
        self.run(copy)
        if n_rows := len(self._damaged) - before:
            self.warnings.damaged_rows(n_rows)

    def all_known(self, namespaces, keys):
        wanted = {key: place for place, key in enumerate(keys)}

        def look(connection):
            with _rows.transaction(connection):
                return all(
                    place in found and (namespace.key, key) not in self._damaged
                    for namespace in namespaces
                    for found in [_rows.find_ids(connection, namespace, wanted)]
                    for key, place in wanted.items()
                )

        return self.run(look, default=False)

    def n_features(self, namespace):
        def look(connection):
            found = connection.execute(
                "SELECT rows.key, crc, data FROM rows JOIN namespaces "
                "ON namespace = namespaces.id WHERE namespaces.key = ? LIMIT 1",
                (namespace.key,),
            ).fetchone()
            if found and is_valid(*found, seed_of(namespace.key)):
                return len(found[2]) // 4

        return self.run(look)

    def hold(self, namespaces, place):
        works = [namespace.work for namespace in namespaces]
        label = "; ".join(namespace.label for namespace in namespaces)
        try:
            return hold_device_lock(self.directory, place, works, label)
        except StoreUnavailable as error:
            self.warnings.unusable(error)
            return contextlib.nullcontext()

    def write(self, batch):
        n_bytes = sum(
            _eviction.footprint(memoryview(row).nbytes)
            for _, _, rows in batch
            for row in rows
        )

        def store(connection):
            self._wrote = True
            if not self._make_space(connection, n_bytes):
                return False
            written, now = [], int(self._clock())
            with _rows.transaction(connection, "IMMEDIATE"):
                for namespace, keys, rows in batch:
                    damaged = {
                        key for name, key in self._damaged if name == namespace.key
                    }
                    sizes = _rows.insert(connection, namespace, keys, rows, damaged)
                    _eviction.note_new(connection, namespace, sizes, now)
                    if sizes:
                        written.append(range(min(sizes), max(sizes) + 1))
            self._written += written
            return True

        if not self._is_full and not self.run(store, default=True, writing=True):
            self._is_full = True
            self.warnings.too_small(format_size(self.limits.max_bytes))

    def finish(self):
        limit = self.limits.file_bytes

        def settle(connection):
            if _eviction.live_bytes(connection) > limit:
                self._make_space(connection, 0)
            _eviction.shrink(connection, limit)

        if self._wrote and limit is not None:
            self.run(settle, writing=True)
        if self._hits:
            try:
                now = int(self._clock())
                self.database.run(_eviction.note_use, self._hits, now)
            except (StoreDamaged, StoreUnavailable) as error:
                logger.debug("The use of rows was not recorded: %s", error)
                self.database.close()

    def _make_space(self, connection, n_bytes):
        limit = self.limits.file_bytes
        if limit is None or _eviction.live_bytes(connection) + n_bytes <= limit:
            return True
        if n_bytes > limit // 2:
            return False  # this alone would replace most of the cache
        used = [ids for _, ids in self._hits] + [np.arange(0)]
        used += [np.arange(ids.start, ids.stop) for ids in self._written]
        protected = np.sort(np.concatenate(used))
        _eviction.evict(connection, int(0.9 * limit) - n_bytes, protected)
        with _rows.transaction(connection, "IMMEDIATE"):
            _variants.delete_unused(connection, int(self._clock()))
        return _eviction.live_bytes(connection) + n_bytes <= limit

    # -- Variants and files

    def known_variants(self, namespace):
        return self.run(_variants.recall, namespace, default=[])

    def add_variant(self, namespace, name, data, known):
        def add(connection):
            if not self._make_space(connection, _eviction.footprint(len(data))):
                return True
            with _rows.transaction(connection, "IMMEDIATE"):
                # Of several processes that add one at the same time, the first wins.
                if _variants.recall(connection, namespace) != known:
                    return False
                now = int(self._clock())
                _variants.remember(connection, namespace, name, data, now)
            return True

        return self.run(add, default=True, writing=True)

    def lookup(self, stats):
        unknown = [None] * len(stats)
        if not stats:
            return unknown
        return self.run(_file_index.lookup, stats, default=unknown)

    def remember(self, stats, digests):
        limit, now = self.limits.n_files, self._clock()

        def store(connection):
            with _rows.transaction(connection, "IMMEDIATE"):
                _file_index.remember(connection, stats, digests, now)
                if limit is None:
                    return
                # Counting takes longer the more files there are, and digests are
                # stored every second. So it is done once, and again when the limit
                # may have been reached.
                if self._n_files is not None:
                    self._n_files += len(stats)
                if self._n_files is None or self._n_files > limit:
                    self._n_files = _file_index.forget_oldest(connection, limit)

        if stats:
            self.run(store, writing=True)

    # -- The whole store

    def info(self):
        # Measured before the connection adds files of its own.
        size, converted = self.database.size(), self.converted.size()
        namespaces, n_files = self.run(_sqlite_audit.look, default=((), 0))
        return CacheInfo(
            self.path,
            size + converted,
            self.limits.max_bytes,
            sum(namespace.n_rows for namespace in namespaces),
            n_files,
            namespaces,
            self.database.quarantined(),
            self.database.of_other_formats(),
            converted,
        )

    def clear(self, pattern):
        if pattern is None:
            self.notes.clear()
            self.converted.clear()

        def remove(connection):
            n_rows = _sqlite_audit.remove(connection, pattern)
            _eviction.shrink(connection, 0)
            return n_rows

        # Not `writing`, so that no file is created only to be emptied.
        return self.run(remove, default=0)

    def check(self, repair):
        try:
            nothing = CheckReport(self.path)
            return self.database.run(
                _sqlite_audit.examine, self.path, repair, default=nothing
            )
        except StoreUnavailable as error:
            problems = (f"it cannot be examined: {error}",)
            return CheckReport(self.path, problems=problems)
        except StoreDamaged as damage:
            problems = damage.args
        self.database.close()
        new_path = None
        try:
            new_path = self.database.quarantine() if repair else None
        except StoreUnavailable as error:
            problems += (f"it cannot be quarantined: {error}",)
        return CheckReport(
            self.path, problems=problems, repaired=bool(new_path), quarantined=new_path
        )

    # -- Errors

    def run(
        self,
        operation: Callable,
        *arguments: object,
        default: Any = None,
        writing: bool = False,
    ) -> Any:
        """Return ``operation(connection, *arguments)``.

        The result is `default` if the file cannot be used, or if there is none.
        A damaged file is quarantined and the operation tried once more, on a new file
        if it writes.
        """
        for _ in range(2):
            if self._unreadable or (writing and self._unwritable):
                return default
            try:
                result = self.database.run(
                    operation, *arguments, default=default, create=writing
                )
            except StoreDamaged as damage:
                self._quarantine(damage)
            except StoreUnavailable as error:
                self._give_up(error, writing)
                return default
            else:
                if self._announces and self.database.is_open:
                    self._announce()
                return result
        self._unreadable = True
        return default

    def _quarantine(self, damage):
        self.database.close()
        self._hits.clear()
        self._written.clear()
        try:
            new_path = self.database.quarantine()
        except StoreUnavailable as error:
            cause = f"it is damaged ({damage}) and cannot be quarantined: {error}"
            self._give_up(cause, False)
        else:
            if new_path is not None:
                self.warnings.quarantined(new_path, damage)

    def _give_up(self, cause, writing):
        self.database.close()
        super()._give_up(cause, writing)

    def _announce(self):
        """Log where the default cache is, as the user has not chosen it.

        A warning is shown even if logging is not set up. So it is one only when the
        cache is created: users see it once, and not in each script and worker.
        """
        global _is_announced
        self._announces, was_announced, _is_announced = False, _is_announced, True
        if was_announced:
            return
        with contextlib.suppress(ValueError):  # sys.stderr has been closed
            logger.log(
                logging.WARNING if self.database.was_created else logging.INFO,
                "Features are cached in %s, which may grow to %s. To change that, set "
                "cache=FeatureCache(path, max_size) or the environment variable "
                "SKDEEPFEAT_CACHE_DIR.",
                shown_path(self.directory.path),
                format_size(self.limits.max_bytes),
            )


# Whether this process has logged where the default cache is.
_is_announced = False


def _copy(connection, namespace, ids, places, key_at, buffer):
    """Copy stored rows to a buffer; return the keys of those that are not valid.

    Parameters
    ----------
    connection : sqlite3.Connection
    namespace : Namespace
    ids : ndarray of int64, ascending
    places : ndarray of int64
        The index in the buffer of each row.
    key_at : list of bytes
        The key of each index.
    buffer : OutputBuffer
    """
    seed = seed_of(namespace.key)
    crc32, put_bytes = zlib.crc32, buffer.put_bytes
    damaged, start = [], 0
    select = "SELECT id, crc, data FROM rows WHERE"
    for chunk, cursor in _rows.select_ids(connection, select, ids.tolist()):
        stop = start + len(chunk)
        place_of = dict(zip(chunk, places[start:stop].tolist(), strict=True))
        start, take = stop, place_of.pop
        for number, crc, data in cursor:
            place = take(number, None)
            # As `is_valid`, without the call: this runs for every row.
            if place is not None and not (
                type(data) is bytes
                and crc32(data, crc32(key_at[place], seed)) == crc
                and put_bytes(place, data)
            ):
                damaged.append(key_at[place])
        damaged += [key_at[place] for place in place_of.values()]
    return damaged
