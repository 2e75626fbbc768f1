"""Looking after a cache in a mapping; what `_audit` is for the SQLite file."""

import fnmatch
from collections import defaultdict

from . import _variants
from ._audit import CacheInfo, CheckReport, NamespaceInfo
from ._mapping_layout import (
    description_name,
    parse_name,
    read_description,
    row_name,
    unpack_row,
    variants_name,
)
from ._mapping_store import MappingStore, in_words

__all__ = ["clear", "describe", "examine"]


def describe(store: MappingStore) -> CacheInfo:
    """Return the `CacheInfo` of a store."""
    try:
        namespaces = tuple(
            _namespace_info(store, key, keys) for key, keys in _contents(store).items()
        )
    except Exception as error:
        store.faults.unusable(store.path, in_words(error))
        return CacheInfo(store.path)
    namespaces = tuple(sorted(filter(None, namespaces), key=lambda each: each.label))
    return CacheInfo(
        store.path,
        size=sum(each.bytes for each in namespaces),
        n_rows=sum(each.n_rows for each in namespaces),
        namespaces=namespaces,
    )


def _contents(store):
    """Return {namespace: keys of its rows}, from the names of all entries."""
    contents = defaultdict(list)
    for name in store.entries.names():
        parsed = parse_name(name)
        if parsed is not None:
            contents[parsed[0]].extend(key for key in parsed[1:] if key is not None)
    return contents


def _namespace_info(store, namespace_key, keys):
    if not keys:
        return None
    sample = row_name(namespace_key, keys[0])
    name = description_name(namespace_key)
    found = {}
    for part in store.entries.get([name, sample]):
        found.update(part)
    label, description = read_description(found.get(name))
    row = unpack_row(namespace_key, keys[0], found.get(sample))
    return NamespaceInfo(
        label=label or namespace_key[:12],
        description=description,
        key=namespace_key,
        n_rows=len(keys),
        n_features=None if row is None else len(row) // 4,
        # Its rows have one length: asking each for its own would read them all.
        bytes=len(keys) * len(found.get(sample, b"")),
        last_used=None,
    )


def clear(store: MappingStore, namespace: str | None) -> int:
    """Remove rows and return how many; see `MappingCache.clear`."""
    try:
        n_rows, names = 0, []
        for key, keys in _contents(store).items():
            if namespace is not None and not _matches(store, key, namespace):
                continue
            n_rows += len(keys)
            names += [row_name(key, each) for each in keys]
            names += [description_name(key), variants_name(key)]
        present = set(store.entries.names())
        store.entries.delete([name for name in names if name in present])
        return n_rows
    except Exception as error:
        store.faults.unusable(store.path, in_words(error))
        return 0


def _matches(store, namespace_key, pattern):
    if pattern == namespace_key:
        return True
    name = description_name(namespace_key)
    [found] = store.entries.get([name])
    label, _ = read_description(found.get(name))
    return fnmatch.fnmatchcase(label, pattern) or pattern == label


def examine(store: MappingStore, repair: bool) -> CheckReport:
    """Return the `CheckReport` of a store; see `MappingCache.check`."""
    n_rows, n_variants, damaged, bad_variants = 0, 0, [], []
    try:
        for namespace_key, keys in _contents(store).items():
            names = {row_name(namespace_key, key): key for key in keys}
            for found in store.entries.get(list(names)):
                n_rows += len(found)
                damaged += [
                    name
                    for name, value in found.items()
                    if unpack_row(namespace_key, names[name], value) is None
                ]
            for found in store.entries.get([variants_name(namespace_key)]):
                n_variants += len(found)
                bad_variants += [
                    name
                    for name, value in found.items()
                    if _variants.unpack(namespace_key, value) is None
                ]
        if repair:
            store.entries.delete([*damaged, *bad_variants])
    except Exception as error:
        problem = f"it cannot be examined: {in_words(error)}"
        return CheckReport(store.path, n_rows, 0, len(damaged), problems=(problem,))
    return CheckReport(
        store.path,
        n_rows,
        0,
        len(damaged),
        repaired=bool(repair and (damaged or bad_variants)),
        n_variants=n_variants,
        n_damaged_variants=len(bad_variants),
    )
