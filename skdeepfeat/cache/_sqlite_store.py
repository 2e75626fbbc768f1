"""The store as the policy sees it: at worst it knows nothing and keeps nothing.

Every fault of the file, the disk or another program ends here, in one warning and
the answer that an empty store would give.
"""

import contextlib
import logging
import sqlite3
import weakref
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from .._utils._filestat import FileStat
from .._utils._forks import before_fork, undisturbed_by_forks
from .._utils._threads import others_wait
from . import _memo, _rows, _variants
from ._database import Database
from ._disk_limits import Limits
from ._faults import Faults, StoreDamaged, StoreUnavailable
from ._file_lock import hold, turn_of
from ._namespace import Namespace
from ._place import Place
from ._sheet import Sheet
from ._size import format_size

__all__ = ["Store"]

logger = logging.getLogger(__name__)

# Seconds. Being read counts as use, but only once in this time, as with `relatime` of
# file systems: a cache that is only read is then hardly ever written to.
USE_GRANULARITY = 600


class Store:
    """The rows in one directory, for the duration of one call.

    Parameters
    ----------
    place : Place
        The directory.
    limits : Limits
    timeout : float
        Seconds to wait for somebody else's lock on the file.
    clock : callable
        Returns seconds since the epoch.
    faults : Faults
    """

    def __init__(
        self,
        place: Place,
        limits: Limits,
        *,
        timeout: float,
        clock: Callable[[], float],
        faults: Faults,
    ):
        self.limits = limits
        self.database = Database(place, timeout, limits.wal_pages)
        self.faults = faults
        self._clock = clock
        self._handle = None
        self._unreadable = self._unwritable = self._full = False
        self._wrote = False
        self._hits = []
        self._written = []
        self._damaged = set()
        _stores.add(self)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._close()

    # -- What the policy asks for

    def read(
        self,
        namespaces: list[Namespace],
        keys: list[bytes],
        rows: list[int],
        sheets: list[Sheet],
    ) -> None:
        """Read the rows that are known in all the namespaces into the sheets.

        Parameters
        ----------
        namespaces : list of Namespace
        keys : list of bytes
            Without duplicates.
        rows : list of int
            Where in the sheets each key's row belongs.
        sheets : list of Sheet
            One for each namespace.
        """
        before = len(self._damaged)
        self.run(lambda c: self._read(c, namespaces, keys, rows, sheets))
        if len(self._damaged) > before:
            n_rows = len(self._damaged) - before
            self.faults.damaged_rows(self.database.path, n_rows)

    def all_known(self, namespaces: list[Namespace], keys: list[bytes]) -> bool:
        """Return whether every key has an undamaged row in every namespace."""

        def look(connection):
            with _rows.transaction(connection):
                for namespace in namespaces:
                    found = _find(connection, namespace, keys)
                    for key in keys:
                        if key not in found or (namespace.key, key) in self._damaged:
                            return False
            return True

        return self.run(look, default=False)

    def hold(self, namespaces: list[Namespace], place: str) -> AbstractContextManager:
        """Return a context in which nobody else runs the networks of namespaces.

        Nor does anybody in this process, or pool of processes, compute anything else
        in the same place: see `turn_of`.
        """
        stack = contextlib.ExitStack()
        works = [namespace.work for namespace in namespaces]
        label = "; ".join(namespace.label for namespace in namespaces)
        try:
            # First the turn: a network for which a pool has no time yet is not kept
            # from other scripts.
            for names in [turn_of(place)], works:
                stack.enter_context(hold(self.database.place, names, waiting_for=label))
        except StoreUnavailable as fault:
            stack.close()
            self.faults.unusable(self.database.path, fault)
        else:
            stack.enter_context(others_wait())
        return stack

    def write(
        self,
        namespaces: list[Namespace],
        keys: list[list[bytes]],
        rows: list[list],
    ) -> None:
        """Store rows, evicting others if need be.

        Parameters
        ----------
        namespaces : list of Namespace
        keys : list of list of bytes
            For each namespace, the keys of its rows.
        rows : list of list of buffers
            For each namespace, its rows: little-endian float32.
        """
        n_bytes = sum(
            _rows.footprint(memoryview(row).nbytes) for group in rows for row in group
        )

        def store(connection):
            self._wrote = True
            if not self._make_room(connection, n_bytes):
                return False
            written = []
            with _rows.transaction(connection, "IMMEDIATE"):
                for namespace, its_keys, its_rows in zip(
                    namespaces, keys, rows, strict=True
                ):
                    written.append(
                        self._insert(connection, namespace, its_keys, its_rows)
                    )
            self._written.extend(written)
            return True

        if not self._full and not self.run(store, default=True, writing=True):
            self._full = True
            limit = format_size(self.limits.max_bytes)
            self.faults.too_small(self.database.path, limit)

    def n_features(self, namespace: Namespace) -> int | None:
        """Return the length of the rows of a namespace, or None if it has none."""

        def look(connection):
            found = connection.execute(
                "SELECT rows.key, crc, data FROM rows JOIN namespaces "
                "ON namespace = namespaces.id WHERE namespaces.key = ? LIMIT 1",
                (namespace.key,),
            ).fetchone()
            if found is None:
                return None
            seed = _rows.checksum_seed(namespace.key)
            return len(found[2]) // 4 if _rows.is_sound(*found, seed) else None

        return self.run(look)

    def settle_variant(
        self,
        namespace: Namespace,
        name: str,
        data: bytes,
        fits: Callable[[bytes], bool],
    ) -> str:
        """Return the name of the first variant of a namespace that fits.

        Where none does, the one of this name is stored. Of several processes that
        find none at the same time, one stores its own and the others find that.

        Parameters
        ----------
        namespace : Namespace
        name : str
        data : bytes
            The probe rows of that variant, little-endian float32.
        fits : callable
            ``fits(probe rows of a variant) -> bool``.
        """

        def look(connection):
            return _variants.choose(_variants.recall(connection, namespace), fits)

        def settle(connection):
            if not self._make_room(connection, _rows.footprint(len(data))):
                return name
            with _rows.transaction(connection, "IMMEDIATE"):
                if (found := look(connection)) is None:
                    now = int(self._clock())
                    _variants.keep(connection, namespace, name, data, now)
            return found or name

        return self.run(look) or self.run(settle, default=name, writing=True)

    def finish(self) -> None:
        """Note what was used, and see to the size of the file."""
        limit = self.limits.file_bytes
        if self._wrote and limit is not None:

            def settle(connection):
                if _rows.live_bytes(connection) > limit:
                    self._make_room(connection, 0)
                _rows.shrink(connection, limit)

            self.run(settle, writing=True)
        if self._hits:
            self._touch()

    def recall_files(self, stats: list[FileStat]) -> list[bytes | None]:
        """Return the digest of each file, None where it is not known."""
        nothing = [None] * len(stats)
        return self.run(lambda c: _memo.recall(c, stats), default=nothing)

    def remember_files(self, stats: list[FileStat], digests: list[bytes]) -> None:
        """Keep the digests of files."""
        limit, now = self.limits.n_files, self._clock()

        def keep(connection):
            with _rows.transaction(connection, "IMMEDIATE"):
                _memo.remember(connection, stats, digests, now, limit)

        self.run(keep, writing=True)

    # -- Faults

    @undisturbed_by_forks()
    def run(
        self,
        operation: Callable[[sqlite3.Connection], Any],
        default: Any = None,
        *,
        writing: bool = False,
    ) -> Any:
        """Return ``operation(connection)``, or `default` where that cannot be had.

        A damaged file is quarantined and the operation tried once more, on a new
        file if it writes.
        """
        for _ in range(2):
            if self._unreadable or (writing and self._unwritable):
                return default
            try:
                if not self._open(create=writing):
                    return default
                with self._handle.use() as connection:
                    return operation(connection)
            except StoreDamaged as damage:
                self._recover(damage)
            except StoreUnavailable as fault:
                if not self._claims_to_be_read_only(fault):
                    self._give_up(fault, writing)
                    return default
                self._recover(StoreDamaged(fault))
        self._unreadable = True
        return default

    def _claims_to_be_read_only(self, fault: StoreUnavailable) -> bool:
        """Return whether a single damaged byte of its header locks the file."""
        return (
            fault.code == sqlite3.SQLITE_READONLY
            and self._handle is not None
            and not self._handle.frozen
            and self.database.is_writable()
        )

    def _open(self, create: bool) -> bool:
        handle = self._handle
        if handle is not None and self.database.identity() != handle.identity:
            # Set aside by somebody else, or removed by the user: what is written to
            # the old file would be lost.
            self._close()
        if self._handle is None:
            self._handle = self.database.open(create=create)
        return self._handle is not None

    @undisturbed_by_forks()
    def _close(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _recover(self, damage: StoreDamaged) -> None:
        handle, path = self._handle, self.database.path
        self._close()
        if handle is not None and handle.frozen:
            self._give_up(f"it is read-only, and {damage}", False)
            return
        identity = damage.identity if handle is None else handle.identity
        self._hits.clear()
        self._written.clear()
        try:
            aside = self.database.set_aside(identity)
        except StoreUnavailable as fault:
            cause = f"it is damaged ({damage}) and cannot be quarantined: {fault}"
            self._give_up(cause, False)
        else:
            if aside is not None:
                self.faults.set_aside(path, aside, damage)

    def _give_up(self, cause: object, writing: bool) -> None:
        self._close()
        self._unwritable = True
        self._unreadable = self._unreadable or not writing
        self.faults.unusable(self.database.path, cause)

    # -- Work on a connection

    def _read(
        self,
        connection: sqlite3.Connection,
        namespaces: list[Namespace],
        keys: list[bytes],
        rows: list[int],
        sheets: list[Sheet],
    ) -> None:
        with _rows.transaction(connection):
            found = [_find(connection, namespace, keys) for namespace in namespaces]
            known = set(keys).intersection(*found)
            for namespace, ids, sheet in zip(namespaces, found, sheets, strict=True):
                # Numbers, not tuples, of which so many would wake the collector.
                place = {ids[key]: i for i, key in enumerate(keys) if key in known}
                ids = sorted(place)
                seed = _rows.checksum_seed(namespace.key)
                found_rows = _rows.read_ids(connection, ids)
                for i in _copy_sound(found_rows, seed, place, keys, rows, sheet):
                    self._damaged.add((namespace.key, keys[i]))
                self._hits.append(ids)

    def _insert(
        self,
        connection: sqlite3.Connection,
        namespace: Namespace,
        keys: list[bytes],
        rows: list,
    ) -> range:
        number = _rows.namespace_id(connection, namespace, create=True)
        present = _rows.find_ids(connection, number, keys)
        replaced = [
            present.pop(key)
            for key in keys
            if key in present and (namespace.key, key) in self._damaged
        ]
        _rows.delete_ids(connection, replaced)
        new = [
            (key, row)
            for key, row in zip(keys, rows, strict=True)
            if key not in present
        ]
        return _rows.insert(
            connection,
            number,
            _rows.checksum_seed(namespace.key),
            [key for key, _ in new],
            [row for _, row in new],
            int(self._clock()),
        )

    def _make_room(self, connection: sqlite3.Connection, n_bytes: int) -> bool:
        limit = self.limits.file_bytes
        if limit is None or _rows.live_bytes(connection) + n_bytes <= limit:
            return True
        if n_bytes > limit // 2:
            return False  # whatever made room for this would be the whole cache
        protected = set().union(*self._hits, *self._written)
        with _rows.transaction(connection, "IMMEDIATE"):
            _rows.evict(connection, int(0.9 * limit) - n_bytes, protected)
            _variants.delete_unused(connection, int(self._clock()))
            return _rows.live_bytes(connection) + n_bytes <= limit

    @undisturbed_by_forks()
    def _touch(self) -> None:
        """Mark the rows that were read as used; where that cannot be, let it be."""
        now = int(self._clock())
        try:
            if self._open(create=False):
                before = now - USE_GRANULARITY
                with self._handle.use() as connection:
                    for ids in self._hits:
                        _rows.touch(connection, ids, now, before)
        except (StoreDamaged, StoreUnavailable) as fault:
            logger.debug("Use of rows was not noted: %s", fault)
            self._close()


# Those that may have a connection.
_stores = weakref.WeakSet()


@before_fork
def _close_connections() -> None:
    """Close all connections, which must not get into a forked child.

    It would take locks of its parent's for its own. Stores connect again when they need
    to.
    """
    for store in list(_stores):
        store._close()


def _find(
    connection: sqlite3.Connection, namespace: Namespace, keys: list[bytes]
) -> dict[bytes, int]:
    number = _rows.namespace_id(connection, namespace)
    return {} if number is None else _rows.find_ids(connection, number, keys)


def _copy_sound(
    found: Iterable,
    seed: int,
    place: dict[int, int],
    keys: list[bytes],
    rows: list[int],
    sheet: Sheet,
) -> list[int]:
    """Copy stored rows to a sheet; return the places of those that are not sound.

    Parameters
    ----------
    found : iterable of iterables of (id, crc, data)
    seed : int
        Of the namespace's checksums.
    place : dict of int to int
        For each wanted id, where in `keys` and `rows` it belongs. Emptied.
    keys : list of bytes
    rows : list of int
    sheet : Sheet
    """
    crc32, put_bytes, take = zlib.crc32, sheet.put_bytes, place.pop
    unsound = []
    for cursor in found:
        for number, crc, data in cursor:
            i = take(number, None)
            # As _rows.is_sound, without the call: this runs for every row.
            if i is not None and not (
                type(data) is bytes
                and crc32(data, crc32(keys[i], seed)) == crc
                and put_bytes(rows[i], data)
            ):
                unsound.append(i)
    return [*unsound, *place.values()]
