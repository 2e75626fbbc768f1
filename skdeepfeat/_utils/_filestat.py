"""What identifies a file's content without reading it, as git's index does."""

import os
import time
from typing import NamedTuple

__all__ = ["FileStat", "is_settled", "stat_file"]

# A file may change again within one tick of its file system's clock and keep its
# mtime: 2 s on FAT, the coarsest. git calls such an index entry racy.
_RACY_NS = 2_000_000_000


class FileStat(NamedTuple):
    """A file as it stood when it was looked at.

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
    """

    path: str
    size: int
    mtime_ns: int
    inode: int


def stat_file(path):
    """Return the `FileStat` of a file as it stands now; raises OSError."""
    status = os.stat(path)
    return FileStat(
        os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ino
    )


def is_settled(file, now_ns=None):
    """Return whether a change of the file from `now_ns` on would show in its mtime.

    Parameters
    ----------
    file : FileStat
    now_ns : int or None, default=None
        Nanoseconds since the epoch, from before the file was read; None is now.
    """
    now_ns = time.time_ns() if now_ns is None else now_ns
    return now_ns - file.mtime_ns > _RACY_NS
