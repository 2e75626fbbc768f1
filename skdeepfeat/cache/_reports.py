"""What `info` and `check` of a cache return."""

import dataclasses
import datetime
import fnmatch

from .._utils._html import html_table
from .._utils._printable import printable, redacted
from ._size import format_size


def matches(pattern: str, key: str, label: object) -> bool:
    """Return whether a pattern is the key or label of a namespace, or matches it."""
    return pattern in (key, label) or fnmatch.fnmatchcase(str(label), pattern)


@dataclasses.dataclass(frozen=True)
class NamespaceInfo:
    """What a cache contains of one neck.

    Attributes
    ----------
    label : str
        Network, layer, pooling, precision.
    description : dict
        Everything that the values of the rows depend on, except the image.
    key : str
        Digest of the description.
    n_rows : int
    n_features : int or None
        Length of a row.
    bytes : int
        Approximate size of its rows on disk.
    last_used : datetime.datetime or None
        Time of the last use of any of its rows, in UTC, to within ten minutes. None if
        unknown.
    """

    label: str
    description: dict
    key: str
    n_rows: int
    n_features: int | None
    bytes: int
    last_used: datetime.datetime | None

    def matches(self, pattern):
        """Return whether ``FeatureCache.clear(pattern)`` removes its rows."""
        return matches(pattern, self.key, self.label)

    def __str__(self):
        used = self.last_used.astimezone() if self.last_used else None
        when = f", last used {used:%Y-%m-%d %H:%M}" if used else ""
        return (
            f"{printable(self.label)}: {self.n_rows:,} rows x {self.n_features} "
            f"features, {format_size(self.bytes)}{when}"
        )


@dataclasses.dataclass(frozen=True)
class CacheInfo:
    """What a cache contains. Print it for a summary.

    Attributes
    ----------
    path : str or None
        Path of the file; None for ``cache=None``.
    size : int
        Bytes on disk.
    max_size : int or None
        Limit of `size`, or None if there is no limit.
    n_rows : int
        Number of feature rows.
    n_files : int
        Number of image files whose digests are stored.
    namespaces : tuple of NamespaceInfo
        One per neck, the last used first.
    quarantined : tuple of str
        Paths of damaged files that were renamed. They are not part of `size`.
    other_formats : tuple of str
        Paths of files from other versions of skdeepfeat that this one does not use.
        They are not part of `size`.
    converted_size : int
        The part of `size` that converted networks and the timings of runtimes take, in
        bytes.
    """

    path: str | None
    size: int = 0
    max_size: int | None = None
    n_rows: int = 0
    n_files: int = 0
    namespaces: tuple[NamespaceInfo, ...] = ()
    quarantined: tuple[str, ...] = ()
    other_formats: tuple[str, ...] = ()
    converted_size: int = 0

    def __str__(self):
        if self.path is None:
            return "no cache"
        lines = [
            f"{_shown(self.path)}: {format_size(self.size)} of "
            f"{format_size(self.max_size)}, {self.n_rows:,} rows, "
            f"digests of {self.n_files:,} files"
        ]
        lines += [f"  {namespace}" for namespace in self.namespaces]
        if self.converted_size:
            size = format_size(self.converted_size)
            lines += [f"  converted networks and timings: {size}"]
        lines += [f"  quarantined: {_shown(path)}" for path in self.quarantined]
        lines += [f"  of another version: {_shown(p)}" for p in self.other_formats]
        return "\n".join(lines)

    def _repr_html_(self):
        if self.path is None:
            return html_table("no cache", [])
        first, *more = str(dataclasses.replace(self, namespaces=())).splitlines()
        rows = [
            (
                one.label,
                f"{one.n_rows:,}",
                one.n_features,
                format_size(one.bytes),
                f"{one.last_used.astimezone():%Y-%m-%d %H:%M}" if one.last_used else "",
            )
            for one in self.namespaces
        ]
        head = ("", "rows", "features", "size", "last used")
        return html_table(" ".join([first, *more]), rows, head)


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """Result of `FeatureCache.check`.

    Attributes
    ----------
    path : str or None
        Path of the file; None for ``cache=None``.
    n_rows, n_files : int
        Number of rows and digests of files that were checked.
    n_damaged, n_damaged_files : int
        How many of them do not match their checksums. They are never used.
    n_variants, n_damaged_variants : int
        The same for the probe rows that identify users' own networks.
    problems : tuple of str
        What is wrong with the file as a whole.
    repaired : bool
        Whether something was wrong and has been repaired.
    quarantined : str or None
        The new path of the file, if it could not be repaired.
    """

    path: str | None
    n_rows: int = 0
    n_files: int = 0
    n_damaged: int = 0
    n_damaged_files: int = 0
    problems: tuple[str, ...] = ()
    repaired: bool = False
    quarantined: str | None = None
    n_variants: int = 0
    n_damaged_variants: int = 0

    @property
    def ok(self) -> bool:
        """Whether no damage was found."""
        n_damaged = self.n_damaged + self.n_damaged_files + self.n_damaged_variants
        return not (self.problems or n_damaged)

    def __str__(self):
        verdict = "valid" if self.ok else "repaired" if self.repaired else "damaged"
        lines = [
            f"{_shown(self.path)}: {verdict}; {self.n_damaged:,} of {self.n_rows:,} "
            f"rows and {self.n_damaged_files:,} of {self.n_files:,} digests of files "
            "are damaged"
        ]
        if self.n_damaged_variants:
            lines += [
                f"  {self.n_damaged_variants:,} of {self.n_variants:,} networks' probe "
                "rows are damaged"
            ]
        lines += [f"  {_shown(problem)}" for problem in self.problems]
        if self.quarantined:
            lines += [f"  quarantined as {_shown(self.quarantined)}"]
        return "\n".join(lines)


def _shown(text: object) -> str:
    return redacted(printable(text))
