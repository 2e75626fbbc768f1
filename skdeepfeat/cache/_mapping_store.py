"""The store over a mapping: an object store that a whole cluster shares.

As `_store.Store`, it is at worst a store that knows nothing and keeps nothing. There
is no lock to be had through a mapping, so two machines may compute the same row. Both
store the same, and neither ever reads another's half: an entry is whole or its checksum
does not fit.
"""

import contextlib
import logging
import os
from collections.abc import Callable, MutableMapping
from contextlib import AbstractContextManager

from .._utils._filestat import FileStat
from .._utils._plain_file import open_plain
from .._utils._printable import redacted
from .._utils._threads import others_wait
from . import _variants
from ._disk_limits import Limits
from ._faults import Faults, StoreUnavailable
from ._file_lock import hold, turn_of
from ._mapping_access import Entries
from ._mapping_layout import (
    describe_namespace,
    description_name,
    pack_row,
    row_name,
    unpack_row,
    variants_name,
)
from ._memo import FileMemo
from ._namespace import Namespace
from ._place import Place
from ._sheet import Sheet

__all__ = ["MappingFaults", "MappingStore", "in_words"]

logger = logging.getLogger(__name__)

# A file that is written anew whenever somebody on this machine has computed rows.
_TURN = "last-turn"


class MappingFaults(Faults):
    """What is said of a mapping; see `Faults`.

    Parameters
    ----------
    quiet : bool
    mapping : MutableMapping
        The values of its file system's options are not shown.
    """

    def __init__(self, quiet: bool, mapping: MutableMapping):
        super().__init__(quiet)
        file_system = getattr(mapping, "fs", None)
        self._secrets = getattr(file_system, "storage_options", {})

    def _warn(self, kind: str, message: str, cause: str | None = None) -> None:
        super()._warn(kind, redacted(message, self._secrets), cause)

    def unusable(self, path: str, cause: object) -> None:
        """Say that rows can not be read or kept."""
        if self._quiet:
            logger.debug("The feature cache %s is not used as asked: %s", path, cause)
            return
        self._warn(
            "unusable",
            f"The feature cache {path} is not used as asked: {cause}. Results are "
            "right, but what could not be stored will be computed again next time. See "
            "that its place can be reached and written to; cache=None does without.",
        )

    def damaged_rows(self, path: str, n_rows: int) -> None:
        """Say that rows failed their checksums."""
        self._warn(
            "damaged rows",
            f"{n_rows} rows of the feature cache {path} are damaged (their checksums "
            "do not match). They are computed again and replaced. MappingCache.check() "
            "examines all of them.",
        )


class MappingStore:
    """The rows in one mapping, for the duration of one call.

    Parameters
    ----------
    path : str
        What the mapping is called in warnings.
    entries : Entries
    memo : FileMemo
        Where digests of files are remembered: not in the mapping, because paths and
        inodes are those of one machine.
    place : Place
        A directory of this machine, for locks.
    faults : MappingFaults
    """

    limits = Limits(None)

    def __init__(
        self,
        path: str,
        entries: Entries,
        memo: FileMemo,
        place: Place,
        faults: MappingFaults,
    ):
        self.path = path
        self.entries = entries
        self.faults = faults
        self._memo = memo
        self._place = place
        self._unreadable = self._unwritable = False
        self._absent: set[str] = set()
        self._described: set[str] = set()
        self._turn_seen = None

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def read(
        self,
        namespaces: list[Namespace],
        keys: list[bytes],
        rows: list[int],
        sheets: list[Sheet],
    ) -> None:
        """Read rows that are known into the sheets; see `Store.read`."""
        n_damaged = 0
        if not self._absent:
            self._turn_seen = self._last_turn()
        for namespace, sheet in zip(namespaces, sheets, strict=True):
            place = {
                row_name(namespace.key, key): (key, row)
                for key, row in zip(keys, rows, strict=True)
            }
            # Asking once more costs as much as asking the first time.
            wanted = [name for name in place if name not in self._absent]
            missing = set(wanted)
            for found in self._get(wanted):
                for name, value in found.items():
                    if isinstance(value, bytes) and not value:
                        continue  # a file that somebody is about to write
                    key, row = place[name]
                    data = unpack_row(namespace.key, key, value)
                    if data is not None and sheet.put_bytes(row, data):
                        missing.discard(name)
                    else:
                        n_damaged += 1
            self._absent |= missing
        if n_damaged:
            self.faults.damaged_rows(self.path, n_damaged)

    def all_known(self, namespaces: list[Namespace], keys: list[bytes]) -> bool:
        """Return False: to know it, they would have to be read."""
        return False

    def hold(
        self, namespaces: list[Namespace], place: str = ""
    ) -> AbstractContextManager:
        """Return a context in which nobody else of this pool of processes computes.

        The lock is on this machine, where the workers of one search are.
        """
        stack = contextlib.ExitStack()
        label = "; ".join(namespace.label for namespace in namespaces)
        try:
            turn = hold(self._place, [turn_of(place)], waiting_for=label)
            stack.enter_context(turn)
        except StoreUnavailable as fault:
            logger.debug("The workers of this machine have no lock: %s", fault)
            return stack
        if self._last_turn() != self._turn_seen:
            self._absent.clear()  # somebody has stored rows since we looked
        stack.callback(self._note_turn)
        stack.enter_context(others_wait())
        return stack

    def _last_turn(self):
        """Return what whoever computed last on this machine has left, or None."""
        try:
            with open_plain(os.path.join(self._place.locks, _TURN)) as file:
                return file.read(16)
        except OSError:
            return None

    def _note_turn(self):
        try:
            path = os.path.join(self._place.locks, _TURN)
            with open_plain(path, "wb", permissions=self._place.permissions) as file:
                file.write(os.urandom(16))
        except OSError as error:
            logger.debug("Others may compute rows again: %s", error)

    def write(
        self,
        namespaces: list[Namespace],
        keys: list[list[bytes]],
        rows: list[list],
    ) -> None:
        """Store rows; see `Store.write`."""
        values = {}
        for namespace, its_keys, its_rows in zip(namespaces, keys, rows, strict=True):
            if its_keys and namespace.key not in self._described:
                self._described.add(namespace.key)
                name = description_name(namespace.key)
                values[name] = describe_namespace(namespace)
            for key, row in zip(its_keys, its_rows, strict=True):
                name = row_name(namespace.key, key)
                values[name] = pack_row(namespace.key, key, row)
        if self._unreadable or self._unwritable or not values:
            return
        try:
            self.entries.set(values)
        except Exception as error:
            # Somebody else's class: its errors have no common base.
            self._unwritable = True
            self.faults.unusable(self.path, in_words(error))
        self._absent.difference_update(values)

    def n_features(self, namespace: Namespace) -> int | None:
        """Return None: a row would have to be found first, and the network knows."""

    def settle_variant(
        self,
        namespace: Namespace,
        name: str,
        data: bytes,
        fits: Callable[[bytes], bool],
    ) -> str:
        """Return the name of the first variant that fits; see `Store.settle_variant`.

        Of two machines that store a new one at the same moment, one is forgotten, and
        what it has computed is computed again.
        """
        entry = variants_name(namespace.key)
        known = []
        for found in self._get([entry]):
            known = _variants.unpack(namespace.key, found.get(entry, b"")) or []
        chosen = _variants.choose(known, fits)
        if chosen is None and not (self._unreadable or self._unwritable):
            packed = _variants.pack(namespace.key, [*known, (name, data)])
            try:
                self.entries.set({entry: packed})
            except Exception as error:
                self._unwritable = True
                self.faults.unusable(self.path, in_words(error))
        return chosen or name

    def finish(self) -> None:
        """Do nothing."""

    def recall_files(self, stats: list[FileStat]) -> list[bytes | None]:
        """Return the digest of each file, None where it is not known."""
        return self._memo.lookup(stats)

    def remember_files(self, stats: list[FileStat], digests: list[bytes]) -> None:
        """Keep the digests of files."""
        self._memo.remember(stats, digests)

    def _get(self, names):
        if self._unreadable:
            return
        try:
            yield from self.entries.get(names)
        except Exception as error:
            self._unreadable = True
            self.faults.unusable(self.path, in_words(error))


def in_words(error: Exception) -> str:
    """Return what a mapping raised, in one line."""
    text = " ".join(str(error).split())[:300]
    name = type(error).__name__
    return f"{name} ({text})" if text else name
