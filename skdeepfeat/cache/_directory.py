"""The directory of a cache: where it is, and who may read it."""

import contextlib
import dataclasses
import os
import stat

import platformdirs

from .._utils._address import is_like_address
from .._utils._printable import redacted
from .._utils._shown import shown
from ._errors import StoreUnavailable

_VARIABLE = "SKDEEPFEAT_CACHE_DIR"

_WITHOUT_HOME = os.path.join("~", ".cache", "skdeepfeat")


@dataclasses.dataclass(frozen=True)
class CacheDirectory:
    """A directory, made when something is first stored in it.

    Attributes
    ----------
    path : str
        Absolute.
    is_default : bool
        Whether it is the platform's cache directory of the user. Then only the user may
        look into it, because a cache contains the paths of the user's images. The
        permissions of a directory that the user has named follow the umask, so that a
        group can share it.
    problem : str or None
        Why there can be no such directory.
    """

    path: str
    is_default: bool = False
    problem: str | None = None

    @property
    def locks(self) -> str:
        """The directory of the lock files."""
        return os.path.join(self.path, "locks")

    @property
    def permissions(self) -> int:
        """Permissions of a new file, before the umask is applied."""
        return 0o600 if self.is_default else 0o666

    def check(self) -> None:
        """Raise `StoreUnavailable` if there can be no such directory.

        If an earlier version left a default directory open to other users, close it.
        """
        if self.problem is not None:
            raise StoreUnavailable(self.problem)
        if not self.is_default or not hasattr(os, "geteuid"):
            return
        with contextlib.suppress(OSError):  # missing, or owned by someone else
            status = os.stat(self.path)
            if status.st_uid != os.geteuid() or not status.st_mode & 0o077:
                return
            for folder, _, names in os.walk(self.path, topdown=False):
                for path in [os.path.join(folder, name) for name in names]:
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        os.chmod(path, 0o600)
                os.chmod(folder, 0o700)

    def make(self, folder: str) -> None:
        """Make the directory and a folder in it.

        Raises
        ------
        OSError, StoreUnavailable
        """
        self.check()
        if os.path.islink(folder):  # files would be created elsewhere
            raise StoreUnavailable(f"{folder} is a link, which is not followed")
        mode = 0o700 if self.is_default else 0o777
        for directory in (self.path, folder):
            if not os.path.isdir(directory):
                os.makedirs(directory, mode, exist_ok=True)


def find_directory(path: str | os.PathLike | None) -> CacheDirectory:
    """Return the directory that a path currently refers to.

    Parameters
    ----------
    path : str, path-like or None
        What the user has named. None is the environment variable
        ``SKDEEPFEAT_CACHE_DIR``, or else the platform's directory for caches.
    """
    if path is None and (path := os.environ.get(_VARIABLE)):
        check_path(path, f"The environment variable {_VARIABLE}")
    is_default = not path
    try:
        if not path:
            path = platformdirs.user_cache_dir("skdeepfeat", appauthor=False)
        path = os.path.expanduser(os.fspath(path))
    except (RuntimeError, OSError):  # what platformdirs raises without a home directory
        path = _WITHOUT_HOME
    # An unexpanded "~" would become a directory of that name in the working directory,
    # and so would a relative path from an environment variable.
    problem = None
    if path.startswith("~"):
        problem = f"the home directory of {path!r} is not known"
    elif is_default and not os.path.isabs(path):
        problem = "the path of the user's cache directory is not absolute"
    else:
        try:
            path = os.path.abspath(path)
        except OSError:
            problem = "the working directory does not exist any more"
    return CacheDirectory(path, is_default, problem)


def check_path(path: str | os.PathLike, source: str) -> None:
    """Raise ValueError for an address and for anything that is not a path.

    An address and an empty path would become unexpected directories: "s3:" in
    the working directory, and that directory itself.

    Parameters
    ----------
    path : str or path-like
    source : str
        What gave the path, as the first words of the error.
    """
    text = os.fsdecode(path)
    if not text:
        raise ValueError(
            f"{source} must not be empty. Pass the path of a directory, or cache=None "
            f"to work without a cache. Got {path!r} instead."
        )
    if "\0" in text:
        raise ValueError(
            f"{source} must be a path, which has no null character. Got {shown(path)} "
            "instead."
        )
    if is_like_address(text):
        raise ValueError(
            f"{source} is an address, not the path of a directory. Pass a mapping "
            f"instead: cache=fsspec.get_mapper({redacted(text)!r})."
        )
