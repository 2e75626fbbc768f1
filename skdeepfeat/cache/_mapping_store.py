"""The store in a mapping, such as an object store that a whole cluster shares.

A mapping has no locks, so two machines may compute the same row. Both store the same,
and neither ever reads an incomplete row of the other, because an entry that is not
complete does not match its checksum.
"""

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterator

from .._utils._plain_file import open_plain
from . import _mapping_layout as layout
from ._errors import StoreUnavailable, StoreWarnings
from ._file_lock import hold_device_lock
from ._mapping_access import Entries
from ._reports import CacheInfo, CheckReport, NamespaceInfo, matches
from ._sqlite_store import SQLiteStore
from ._store import Store

logger = logging.getLogger(__name__)

# A file that is written whenever a process of this machine has computed rows.
_LAST_WRITER = "last-writer"


class MappingStore(Store):
    """The rows in one mapping; see `Store`.

    Parameters
    ----------
    path : str
        The name of the mapping in messages.
    entries : Entries
    local : SQLiteStore
        The cache of this machine, for locks and for the digests of files. They are not
        in the mapping, because paths and inodes are those of one machine.
    """

    keeps_rows = True

    def __init__(self, path: str, entries: Entries, local: SQLiteStore):
        self.path = path
        self.entries = entries
        self._local = local
        file_system = getattr(entries.mapping, "fs", None)
        secrets = getattr(file_system, "storage_options", {})
        self.warnings = StoreWarnings(path, secrets=secrets)
        self._directory = local.directory
        self.converted, self.notes = local.converted, local.notes
        self._forget_job()

    def close(self):
        self._local.close()

    def lookup(self, stats):
        return self._local.lookup(stats)

    def remember(self, stats, digests):
        self._local.remember(stats, digests)

    def _forget_job(self):
        super()._forget_job()
        self._absent: set[str] = set()
        self._described: set[str] = set()
        self._seen_writer = None

    def read(self, namespaces, wanted, buffers):
        n_damaged = 0
        if not self._absent:
            self._seen_writer = self._last_writer()
        for namespace, buffer in zip(namespaces, buffers, strict=True):
            key_of = {layout.row_name(namespace.key, key): key for key in wanted}
            # A second request is as slow as the first one.
            names = [name for name in key_of if name not in self._absent]
            missing = set(names)
            for name, value in self._get(names):
                if isinstance(value, bytes) and not value:
                    continue  # a file that another process is about to write
                key = key_of[name]
                data = layout.unpack_row(namespace.key, key, value)
                if data is not None and buffer.put_bytes(wanted[key], data):
                    missing.discard(name)
                else:
                    n_damaged += 1
            self._absent |= missing
        if n_damaged:
            self.warnings.damaged_rows(n_damaged)

    def hold(self, namespaces, place):
        label = "; ".join(namespace.label for namespace in namespaces)
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(hold_device_lock(self._directory, place, [], label))
        except StoreUnavailable as error:
            logger.debug("Processes on this machine share no lock: %s", error)
        else:
            if self._last_writer() != self._seen_writer:
                self._absent.clear()  # other processes have stored rows since
            stack.callback(self._note_writer)
        return stack

    def _last_writer(self):
        """Return what the last computation on this machine has left, or None."""
        try:
            with open_plain(os.path.join(self._directory.locks, _LAST_WRITER)) as file:
                return file.read(16)
        except OSError:
            return None

    def _note_writer(self):
        path = os.path.join(self._directory.locks, _LAST_WRITER)
        permissions = self._directory.permissions
        try:
            with open_plain(path, "wb", permissions=permissions) as file:
                self._seen_writer = os.urandom(16)
                file.write(self._seen_writer)
        except OSError as error:
            logger.debug("Other processes may compute the same rows: %s", error)

    def write(self, batch):
        values = {}
        for namespace, keys, rows in batch:
            if keys and namespace.key not in self._described:
                self._described.add(namespace.key)
                name = layout.description_name(namespace.key)
                values[name] = layout.describe_namespace(namespace)
            for key, row in zip(keys, rows, strict=True):
                name = layout.row_name(namespace.key, key)
                values[name] = layout.pack_row(namespace.key, key, row)
        self.run(self.entries.set, values, writing=True)
        self._absent.difference_update(values)

    def known_variants(self, namespace):
        entry = layout.variants_name(namespace.key)
        value = dict(self._get([entry])).get(entry)
        return layout.unpack_variants(namespace.key, value) or []

    def add_variant(self, namespace, name, data, known):
        # If two machines store a new variant at the same moment, one of them is lost,
        # and its rows are computed again.
        if self.known_variants(namespace) != known:
            return False
        entry = layout.variants_name(namespace.key)
        packed = layout.pack_variants(namespace.key, [*known, (name, data)])
        self.run(self.entries.set, {entry: packed}, writing=True)
        return True

    # -- The whole store

    def info(self):
        namespaces = self.run(self._namespaces, default=[])
        namespaces.sort(key=lambda each: each.label)
        return CacheInfo(
            self.path,
            size=sum(each.bytes for each in namespaces),
            n_rows=sum(each.n_rows for each in namespaces),
            namespaces=tuple(namespaces),
        )

    def _contents(self):
        """Return {namespace: {name of an entry: key of its row, or None}}."""
        contents = defaultdict(dict)
        for name in self.entries.mapping:
            if parsed := layout.parse_name(name):
                namespace, key = parsed
                contents[namespace][name] = key
        return contents

    def _namespaces(self):
        return [
            self._namespace_info(namespace, rows)
            for namespace, found in self._contents().items()
            if (rows := {name: key for name, key in found.items() if key})
        ]

    def _namespace_info(self, namespace, rows):
        sample, key = next(iter(rows.items()))
        label, description = self._description(namespace)
        value = dict(self.entries.get([sample])).get(sample)
        row = layout.unpack_row(namespace, key, value)
        return NamespaceInfo(
            label=label or namespace[:12],
            description=description,
            key=namespace,
            n_rows=len(rows),
            n_features=None if row is None else len(row) // 4,
            # All its rows have one length. Checking each would read them all.
            bytes=len(rows) * (0 if row is None else len(value)),
            last_used=None,
        )

    def _description(self, namespace):
        """Return (label, description) of a namespace, as far as they are known."""
        name = layout.description_name(namespace)
        return layout.read_description(dict(self.entries.get([name])).get(name))

    def clear(self, pattern):
        return self.run(self._clear, pattern, default=0, writing=True)

    def _clear(self, pattern):
        removed = {}
        for namespace, found in self._contents().items():
            if pattern is None or matches(
                pattern, namespace, self._description(namespace)[0]
            ):
                removed |= found
        self.entries.delete(list(removed))
        return sum(key is not None for key in removed.values())

    def check(self, repair):
        n_rows = n_variants = 0
        bad_rows, bad_variants, problems = [], [], ()
        try:
            for namespace, found in self._contents().items():
                for name, value in self.entries.get(list(found)):
                    if (key := found[name]) is not None:
                        n_rows += 1
                        if layout.unpack_row(namespace, key, value) is None:
                            bad_rows.append(name)
                    elif name == layout.variants_name(namespace):
                        n_variants += 1
                        if layout.unpack_variants(namespace, value) is None:
                            bad_variants.append(name)
            if repair:
                self.entries.delete(bad_rows + bad_variants)
        except Exception as error:
            problems = (f"it cannot be examined: {_in_words(error)}",)
        is_repaired = repair and not problems and bool(bad_rows or bad_variants)
        return CheckReport(
            self.path,
            n_rows=n_rows,
            n_damaged=len(bad_rows),
            problems=problems,
            repaired=is_repaired,
            n_variants=n_variants,
            n_damaged_variants=len(bad_variants),
        )

    # -- Errors

    def run(self, operation, *arguments, default=None, writing=False):
        """Return ``operation(*arguments)``; `default` if the mapping cannot be used."""
        if self._unreadable or (writing and self._unwritable):
            return default
        try:
            return operation(*arguments)
        except Exception as error:
            # The mapping may be of any class, so its errors have no common base class.
            self._give_up(_in_words(error), writing)
            return default

    def _get(self, names: list[str]) -> Iterator[tuple[str, object]]:
        """Yield the entries that are found, as long as the mapping can be read."""
        if not self._unreadable:
            try:
                yield from self.entries.get(names)
            except Exception as error:
                self._give_up(_in_words(error), writing=False)


def _in_words(error: Exception) -> str:
    """Return what a mapping raised, in one line."""
    text = " ".join(str(error).split())[:300]
    name = type(error).__name__
    return f"{name} ({text})" if text else name
