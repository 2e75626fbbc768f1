"""Sizes on disk: as people write and read them, and what the cache uses them for."""

import math
import re

from .._utils._parameter_errors import is_int
from .._utils._shown import shown
from ._connection import PAGE_SIZE

_MIB = 2**20

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    _UNITS[f"{_letter}b"] = 1000**_power
    _UNITS[f"{_letter}ib"] = 1024**_power

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*")


def parse_size(size: int | str | None) -> int | None:
    """Return a size in bytes.

    Parameters
    ----------
    size : int, str or None
        Bytes, or a number and a unit: decimal (kB, MB, GB, TB, powers of 1000) or
        binary (KiB, MiB, GiB, TiB, powers of 1024).

    Returns
    -------
    int or None
        None for None.

    Raises
    ------
    TypeError, ValueError
        If it is none of these, or not above zero.
    """
    if size is None:
        return None
    is_number = is_int(size)
    n_bytes = int(size) if is_number else 0
    if isinstance(size, str) and (found := _SIZE.fullmatch(size)):
        n_bytes = math.floor(float(found[1]) * _UNITS.get(found[2].lower(), 0))
    if n_bytes > 0:
        return n_bytes
    error = ValueError if is_number or isinstance(size, str) else TypeError
    raise error(
        "The 'max_size' parameter of FeatureCache must be a number of bytes above 0, "
        "a text such as '500 MB' or '2 GiB', or None for no limit (cache=None works "
        f"without a cache). Got {shown(size)} instead."
    )


def format_size(n_bytes: int | None) -> str:
    """Return a number of bytes in decimal units, such as ``"1.2 GB"``."""
    if n_bytes is None:
        return "no limit"
    size = float(n_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class Limits:
    """How the bytes that the user grants are divided.

    Parameters
    ----------
    max_bytes : int or None
        What the cache may take; None for no limit.
    reserved : int, default=0
        Bytes of it that other files take than the SQLite file and its log.

    Attributes
    ----------
    max_bytes : int or None
    file_bytes : int or None
        Bytes that the file itself may take.
    wal_pages : int
        Pages that the write-ahead log may grow to, approximately.
    commit_bytes : int
        Bytes of rows that are worth a commit of their own.
    n_files : int or None
        Number of files whose digests are stored, at about 150 bytes each; None for no
        limit.
    """

    def __init__(self, max_bytes: int | None, reserved: int = 0):
        self.max_bytes = self.file_bytes = max_bytes
        self.wal_pages = 512
        self.commit_bytes = 16 * _MIB
        self.n_files = None
        if max_bytes is not None:
            log_bytes = min(max(max_bytes // 16, 4 * _MIB), max_bytes // 4)
            self.file_bytes = max(max_bytes - log_bytes - reserved, max_bytes // 2)
            self.wal_pages = min(max(log_bytes // (2 * PAGE_SIZE), 4), 512)
            self.commit_bytes = min(max(self.file_bytes // 16, PAGE_SIZE), 16 * _MIB)
            self.n_files = max_bytes // 1000
