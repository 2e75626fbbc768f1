"""The directory of a cache: where it is, and who may read it."""

import contextlib
import dataclasses
import os
import stat

import platformdirs

from .._utils._address import is_address
from .._utils._printable import redacted
from ._faults import StoreUnavailable

__all__ = ["DIRECTORY_VARIABLE", "Place", "find_place", "refuse_no_directory"]

DIRECTORY_VARIABLE = "SKDEEPFEAT_CACHE_DIR"

_HOMELESS = os.path.join("~", ".cache", "skdeepfeat")


@dataclasses.dataclass(frozen=True)
class Place:
    """A directory, made when something is first kept in it.

    Attributes
    ----------
    directory : str
        Absolute.
    is_private : bool
        Whether nobody but the user may look into it. A cache names the user's images. A
        directory that the user has named follows the umask instead, so that a group
        can share it.
    fault : str or None
        Why there can be no such directory.
    """

    directory: str
    is_private: bool = False
    fault: str | None = None

    @property
    def locks(self) -> str:
        """The directory for the files of locks."""
        return os.path.join(self.directory, "locks")

    @property
    def permissions(self) -> int:
        """Those of a new file, less the umask."""
        return 0o600 if self.is_private else 0o666

    def check(self) -> None:
        """Raise `StoreUnavailable` if there can be no such directory."""
        if self.fault is not None:
            raise StoreUnavailable(self.fault)

    def make(self) -> None:
        """Make the directory and that of the locks.

        Raises
        ------
        OSError, StoreUnavailable
        """
        self.check()
        if os.path.islink(self.locks):  # files would be made somewhere else
            raise StoreUnavailable(f"{self.locks} is a link, which is not followed")
        mode = 0o700 if self.is_private else 0o777
        for directory in (self.directory, self.locks):
            if not os.path.isdir(directory):
                os.makedirs(directory, mode, exist_ok=True)

    def tighten(self) -> None:
        """Close a private directory that an earlier version left open to others."""
        if not self.is_private or not hasattr(os, "geteuid"):
            return
        with contextlib.suppress(OSError):  # not there, or not ours to change
            if not _is_open_to_others(self.directory):
                return
            for folder, _, names in os.walk(self.directory, topdown=False):
                for path in [os.path.join(folder, name) for name in names]:
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        os.chmod(path, 0o600)
                os.chmod(folder, 0o700)


def _is_open_to_others(directory):
    status = os.stat(directory)
    return status.st_uid == os.geteuid() and bool(status.st_mode & 0o077)


def find_place(path) -> Place:
    """Return the place of a cache, as things are now.

    Parameters
    ----------
    path : str, path-like or None
        What the user has named. None is the environment variable
        ``SKDEEPFEAT_CACHE_DIR``, or else the platform's folder for caches.
    """
    if path is None and (path := os.environ.get(DIRECTORY_VARIABLE)):
        refuse_no_directory(path, f"The environment variable {DIRECTORY_VARIABLE}")
    is_default = not path
    try:
        if is_default:
            path = platformdirs.user_cache_dir("skdeepfeat", appauthor=False)
        path = os.path.expanduser(os.fspath(path))
    except (RuntimeError, OSError):  # what platformdirs raises for want of a home
        path = _HOMELESS
    # What is left of "~" would become a folder of that name in the working directory,
    # as would a relative path that the environment gives for caches.
    if path.startswith("~"):
        return Place(path, is_default, f"the home directory of {path!r} is not known")
    if is_default and not os.path.isabs(path):
        return Place(path, True, "the path of the user's cache folder is not absolute")
    try:
        return Place(os.path.abspath(path), is_default)
    except OSError:
        return Place(path, is_default, "the working directory does not exist any more")


def refuse_no_directory(path, named):
    """Raise ValueError for an empty path, and for an address.

    Both would become folders where nobody looks: the working directory, and "s3:" in
    it.

    Parameters
    ----------
    path : str or path-like
    named : str
        What gave the path, as the error's first words.
    """
    text = os.fsdecode(path)
    if not text:
        raise ValueError(
            f"{named} must not be empty: give a directory's path, or cache=None for no "
            f"cache. Got {path!r} instead."
        )
    if is_address(text):
        raise ValueError(
            f"{named} is an address, not a directory's path: give a mapping, "
            f"cache=fsspec.get_mapper({redacted(text)!r})."
        )
