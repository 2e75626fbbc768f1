"""Identify the content of a file without reading it, as git's index does."""

import os
import time
from typing import NamedTuple

# A file that changes twice within one tick of its file system's clock may keep its
# mtime. A tick is at most 2 s, on FAT. git calls such an index entry racy.
_RACY_NS = 2_000_000_000
# The same for ctime, which FAT does not keep: at most 10 ms on Linux.
_RACY_CTIME_NS = 20_000_000


class FileStat(NamedTuple):
    """The state of a file.

    Attributes
    ----------
    path : str
        Absolute.
    size : int
        Bytes.
    mtime_ns : int
        Time of the last change of the content, nanoseconds since the epoch.
    inode : int
        Number of the file in its file system.
    ctime_ns : int, default=0
        Time of the last change of content or metadata. Unlike `mtime_ns`, it cannot be
        set, as ``cp -p``, ``rsync --times`` and unpacking do. On Windows it is the time
        of creation.
    """

    path: str
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int = 0


def file_stat(path, status):
    """Return the `FileStat` of an absolute path and its `os.stat_result`."""
    return FileStat(
        path, status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns
    )


def stat_file(path):
    """Return the current `FileStat` of a file; raises OSError."""
    return file_stat(os.path.abspath(path), os.stat(path))


def is_settled(file, now_ns=None):
    """Return whether a change of the file after `now_ns` would change its times.

    Parameters
    ----------
    file : FileStat
    now_ns : int or None, default=None
        Nanoseconds since the epoch, before the file was read; None is now.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    return now_ns - file.mtime_ns > _RACY_NS and now_ns - file.ctime_ns > _RACY_CTIME_NS
