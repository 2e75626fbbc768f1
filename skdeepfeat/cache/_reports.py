"""Looking after a cache: what is in it, is it sound, out with what is not wanted."""

import dataclasses
import datetime
import fnmatch
import json
from sqlite3 import Connection

from .._utils._printable import printable, redacted
from . import _memo, _rows, _variants
from ._faults import StoreDamaged, StoreUnavailable
from ._size import format_size
from ._store import Store

__all__ = ["CacheInfo", "CheckReport", "NamespaceInfo", "clear", "describe", "examine"]

# Bytes of the keys, labels and descriptions of all namespaces; one takes some hundred.
_MAX_NAMESPACES = 2**26


@dataclasses.dataclass(frozen=True)
class NamespaceInfo:
    """What a cache holds of one neck.

    Attributes
    ----------
    label : str
        Network, layer, pooling, precision.
    description : dict
        Everything that the rows' values depend on, besides the image.
    key : str
        Digest of the description.
    n_rows : int
    n_features : int or None
        Length of a row.
    bytes : int
        About how much of the file its rows take.
    last_used : datetime.datetime or None
        When any of its rows was last used, in UTC; exact to ten minutes.
    """

    label: str
    description: dict
    key: str
    n_rows: int
    n_features: int | None
    bytes: int
    last_used: datetime.datetime | None

    def __str__(self):
        used = self.last_used.astimezone() if self.last_used else None
        when = f", last used {used:%Y-%m-%d %H:%M}" if used else ""
        return (
            f"{printable(self.label)}: {self.n_rows:,} rows x {self.n_features} "
            f"features, {format_size(self.bytes)}{when}"
        )


@dataclasses.dataclass(frozen=True)
class CacheInfo:
    """What a cache holds. ``print`` it for a summary.

    Attributes
    ----------
    path : str or None
        The file; None for ``cache=None``.
    size : int
        Bytes on disk.
    max_size : int or None
        Bytes that it may grow to; None for no limit.
    n_rows : int
        Rows of features.
    n_files : int
        Image files whose digests are remembered.
    namespaces : tuple of NamespaceInfo
        Those used last come first.
    set_aside : tuple of str
        Paths of quarantined damaged files; they are not part of `size`.
    """

    path: str | None
    size: int = 0
    max_size: int | None = None
    n_rows: int = 0
    n_files: int = 0
    namespaces: tuple[NamespaceInfo, ...] = ()
    set_aside: tuple[str, ...] = ()

    def __str__(self):
        if self.path is None:
            return "no cache"
        lines = [
            f"{_shown(self.path)}: {format_size(self.size)} of "
            f"{format_size(self.max_size)}, {self.n_rows:,} rows, "
            f"{self.n_files:,} files remembered"
        ]
        lines += [f"  {namespace}" for namespace in self.namespaces]
        lines += [f"  quarantined: {_shown(path)}" for path in self.set_aside]
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What an examination of a cache found.

    Attributes
    ----------
    path : str or None
        The file; None for ``cache=None``.
    n_rows, n_files : int
        Rows, and digests of files, that were examined.
    n_damaged, n_damaged_files : int
        How many of them do not fit their checksums. They are never used.
    n_variants, n_damaged_variants : int
        The same of the probe rows by which users' own networks are recognized.
    problems : tuple of str
        What is wrong with the file as a whole.
    repaired : bool
        Whether something was wrong and is not any more.
    set_aside : str or None
        Where the file is now, if it was past repair.
    """

    path: str | None
    n_rows: int = 0
    n_files: int = 0
    n_damaged: int = 0
    n_damaged_files: int = 0
    problems: tuple[str, ...] = ()
    repaired: bool = False
    set_aside: str | None = None
    n_variants: int = 0
    n_damaged_variants: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        n_damaged = self.n_damaged + self.n_damaged_files + self.n_damaged_variants
        return not (self.problems or n_damaged)

    def __str__(self):
        verdict = "sound" if self.ok else "repaired" if self.repaired else "damaged"
        lines = [
            f"{_shown(self.path)}: {verdict}; {self.n_damaged:,} of {self.n_rows:,} "
            f"rows and {self.n_damaged_files:,} of {self.n_files:,} files' digests "
            "damaged"
        ]
        if self.n_damaged_variants:
            lines += [
                f"  {self.n_damaged_variants:,} of {self.n_variants:,} networks' probe "
                "rows damaged"
            ]
        lines += [f"  {_shown(problem)}" for problem in self.problems]
        lines += (
            [f"  quarantined as {_shown(self.set_aside)}"] if self.set_aside else []
        )
        return "\n".join(lines)


def _shown(text: object) -> str:
    return redacted(printable(text))


def describe(store: Store) -> CacheInfo:
    """Return the `CacheInfo` of a store."""
    path, limit = store.database.path, store.limits.max_bytes
    # Measured before the connection adds companions of its own to the file.
    size = store.database.size()
    found = store.run(_look)
    aside = tuple(store.database.aside())
    if found is None:
        return CacheInfo(path, size, limit, set_aside=aside)
    namespaces, n_files = found
    n_rows = sum(namespace.n_rows for namespace in namespaces)
    return CacheInfo(path, size, limit, n_rows, n_files, namespaces, aside)


def _look(connection: Connection) -> tuple[tuple[NamespaceInfo, ...], int]:
    with _rows.transaction(connection):
        n_files = _memo.count(connection, "files")
        totals = {
            number: rest
            for number, *rest in connection.execute(
                "SELECT CAST(namespace AS INTEGER), count(*), "
                "total(CAST(bytes AS INTEGER)), max(CAST(used AS INTEGER)) "
                "FROM rows JOIN used USING (id) GROUP BY namespace"
            )
        }
        records = _namespaces(connection, "id, key, label, description")
        namespaces = [
            _namespace_info(connection, record, totals[record[0]])
            for record in records
            if record[0] in totals
        ]
    oldest = datetime.datetime.min.replace(tzinfo=datetime.UTC)
    namespaces.sort(key=lambda each: each.last_used or oldest, reverse=True)
    return tuple(namespaces), n_files


def _namespaces(connection: Connection, columns: str) -> list[tuple]:
    """Return columns of all namespaces, if they do not fill the memory."""
    records, size = [], 0
    for record in connection.execute(f"SELECT {columns} FROM namespaces"):
        size += 100 + sum(len(value) for value in record if hasattr(value, "__len__"))
        if size > _MAX_NAMESPACES:
            raise StoreDamaged("it has too many namespaces")
        records.append(record)
    return records


def _namespace_info(
    connection: Connection, record: tuple, totals: list
) -> NamespaceInfo:
    number, key, label, description = record
    n_rows, n_bytes, last_used = totals
    length = connection.execute(
        "SELECT length(data) FROM rows WHERE namespace = ? LIMIT 1", (number,)
    ).fetchone()
    return NamespaceInfo(
        label=str(label),
        description=_parsed(description),
        key=str(key),
        n_rows=n_rows,
        n_features=length[0] // 4 if length and length[0] else None,
        bytes=int(n_bytes or 0),
        last_used=_as_time(last_used),
    )


def _parsed(description: object) -> dict:
    try:
        parsed = json.loads(description)
    except (TypeError, ValueError, RecursionError):
        parsed = None
    # Damaged, or a stranger's; nothing but this summary reads it.
    return parsed if isinstance(parsed, dict) else {}


def _as_time(seconds: object) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (TypeError, ValueError, OverflowError, OSError):  # damaged
        return None


def clear(store: Store, namespace: str | None) -> int:
    """Remove rows and return how many; see `FeatureCache.clear`."""
    if not store.run(lambda connection: True, default=False):
        return 0

    def remove(connection):
        with _rows.transaction(connection, "IMMEDIATE"):
            if namespace is None:
                n_rows = _memo.count(connection, "rows")
                for table in ("rows", "used", "files", "namespaces", "variants"):
                    connection.execute(f"DELETE FROM {table}")
            else:
                n_rows = sum(
                    _remove_namespace(connection, number)
                    for number in _matching(connection, namespace)
                )
        _rows.shrink(connection, 0)
        return n_rows

    return store.run(remove, default=0, writing=True)


def _matching(connection: Connection, pattern: str) -> list[int]:
    return [
        number
        for number, key, label in _namespaces(connection, "id, key, label")
        if pattern in (key, label) or fnmatch.fnmatchcase(str(label), pattern)
    ]


def _remove_namespace(connection: Connection, number: int) -> int:
    connection.execute(
        "DELETE FROM used WHERE id IN (SELECT id FROM rows WHERE namespace = ?)",
        (number,),
    )
    removed = connection.execute("DELETE FROM rows WHERE namespace = ?", (number,))
    connection.execute(
        "DELETE FROM variants WHERE key IN (SELECT key FROM namespaces WHERE id = ?)",
        (number,),
    )
    connection.execute("DELETE FROM namespaces WHERE id = ?", (number,))
    return removed.rowcount


def examine(store: Store, repair: bool) -> CheckReport:
    """Return the `CheckReport` of a store; see `FeatureCache.check`."""
    path = store.database.path
    try:
        handle = store.database.open(create=False)
        if handle is None:
            return CheckReport(path)
        identity = handle.identity
        try:
            with handle.use() as connection:
                return _examine(connection, path, repair)
        finally:
            handle.close()
    except StoreDamaged as damage:
        identity = damage.identity or identity
        problems = damage.args
    except StoreUnavailable as fault:
        return CheckReport(path, problems=(f"it cannot be examined: {fault}",))
    aside = None
    if repair:
        try:
            aside = store.database.set_aside(identity)
        except StoreUnavailable as fault:
            problems += (f"it cannot be quarantined: {fault}",)
    repaired = aside is not None
    return CheckReport(path, problems=problems, repaired=repaired, set_aside=aside)


def _examine(connection: Connection, path: str, repair: bool) -> CheckReport:
    found = [text for (text,) in connection.execute("PRAGMA integrity_check(10)")]
    if found != ["ok"]:
        raise StoreDamaged(*found)
    with _rows.transaction(connection):
        n_rows, bad_rows = _examine_rows(connection)
        n_files, bad_files = _examine_files(connection)
        n_variants, bad_variants = _variants.examine(connection)
    is_repaired = bool(repair and (bad_rows or bad_files or bad_variants))
    if is_repaired:
        with _rows.transaction(connection, "IMMEDIATE"):
            _rows.delete_ids(connection, bad_rows)
            connection.executemany(
                "DELETE FROM files WHERE key = ?", ((key,) for key in bad_files)
            )
            connection.executemany(
                "DELETE FROM variants WHERE id = ?", zip(bad_variants)
            )
    return CheckReport(
        path,
        n_rows,
        n_files,
        len(bad_rows),
        len(bad_files),
        repaired=is_repaired,
        n_variants=n_variants,
        n_damaged_variants=len(bad_variants),
    )


def _examine_rows(connection: Connection) -> tuple[int, list[int]]:
    seeds = {
        number: _rows.checksum_seed(str(key))
        for number, key in _namespaces(connection, "id, key")
    }
    n_rows, bad = 0, []
    # A row that is not in `used` would never be evicted.
    for number, listed, namespace, key, crc, data in connection.execute(
        "SELECT rows.id, used.id, namespace, key, crc, data "
        "FROM rows LEFT JOIN used USING (id)"
    ):
        n_rows += 1
        seed = seeds.get(namespace)
        sound = listed is not None and seed is not None
        if not (sound and _rows.is_sound(key, crc, data, seed)):
            bad.append(number)
    return n_rows, bad


def _examine_files(connection: Connection) -> tuple[int, list]:
    n_files, bad = 0, []
    for key, digest, crc in connection.execute("SELECT key, digest, crc FROM files"):
        n_files += 1
        if not _memo.is_sound(key, digest, crc):
            bad.append(key)
    return n_files, bad
