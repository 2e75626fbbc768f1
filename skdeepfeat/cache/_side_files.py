"""Small files next to a cache, in folders of limited size.

What they hold can be found out again, so whatever is wrong with one, it is not there.
"""

import contextlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator

import platformdirs
from blake3 import blake3

from .._utils._digests import digest_bytes
from .._utils._plain_file import open_plain
from .._utils._printable import printable
from ._directory import CacheDirectory
from ._errors import StoreUnavailable

logger = logging.getLogger(__name__)

_DIGEST_BYTES = 32
# Names of files, and of files that are being written. Other files in the folder are
# left alone, because the user's directory may already have a folder "notes".
_NAME = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{16})?")

# Maximum bytes of all notes and of one. A typical note about a network has 1 KB.
_MAX_NOTES = 2**23
_MAX_NOTE = 2**18
# Maximum bytes of all converted networks, and at most a tenth of the limit of the
# cache. ResNet-50 has 94 MB.
_MAX_NETWORKS = 2**30
_SHARE = 10
_SECRET_BYTES = 32


class SideFiles:
    """Files by key, each with a digest. By default notes: what takes long to find out.

    Like rows, they may come from anybody who can write to the cache. They are data,
    which their reader has to check.

    Parameters
    ----------
    directory : CacheDirectory
        Of the cache.
    name : str
        Of the folder in it.
    max_bytes : int
        Of all files. Those that were written longest ago are removed.
    max_file_bytes : int
        Of one file.
    """

    # What files begin with, before the digest.
    _magic = b"skdeepfeat side file 1\n"
    # Permissions of new files; None for those of the cache.
    _permissions: int | None = None

    def __init__(
        self,
        directory: CacheDirectory,
        name: str = "notes",
        max_bytes: int = _MAX_NOTES,
        max_file_bytes: int = _MAX_NOTE,
    ):
        self.folder = os.path.join(directory.path, name)
        self._directory = directory
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, key[:_DIGEST_BYTES])

    def read(self, key: str) -> bytes | None:
        """Return what was written for a key, or None.

        Parameters
        ----------
        key : str
            A hexadecimal digest.
        """
        if not self._is_usable():
            return None
        try:
            with open_plain(self._path(key)) as file:
                size = os.fstat(file.fileno()).st_size
                if size > self._max_file_bytes:
                    return None
                head = file.read(len(self._magic) + _DIGEST_BYTES)
                data = file.read(size)  # not more, even if it grows
        except OSError:
            return None
        digest = self._digest(key, data)
        if not digest or not secrets.compare_digest(head, self._magic + digest):
            return None
        return data

    def write(self, key: str, data: bytes) -> None:
        """Write a file, or replace it; other readers see all of it or nothing."""
        if len(self._magic) + _DIGEST_BYTES + len(data) > self._max_file_bytes:
            return
        temporary = f"{self._path(key)}.{secrets.token_hex(8)}"
        try:
            self._make_folder()
            head = self._magic + (self._digest(key, data) or b"")
            permissions = self._permissions or self._directory.permissions
            with open_plain(temporary, "xb", permissions=permissions) as file:
                file.write(head)
                file.write(data)
            os.replace(temporary, self._path(key))
            self._remove_oldest()
        except (OSError, StoreUnavailable) as error:
            logger.debug("%s: %s", printable(temporary), printable(error))
            with contextlib.suppress(OSError):
                os.unlink(temporary)

    def clear(self) -> None:
        """Remove all files."""
        for _, _, path in self._files():
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _digest(self, key: str, data: bytes) -> bytes | None:
        """Return the digest in a file. A renamed file does not have its key's."""
        return digest_bytes(key.encode() + b"\0" + data)

    def _is_usable(self) -> bool:
        return self._directory.problem is None and not os.path.islink(self.folder)

    def _make_folder(self) -> None:
        self._directory.make(self.folder)

    def _remove_oldest(self) -> None:
        files = sorted(self._files(), reverse=True)
        n_bytes = 0
        for _, size, path in files:
            n_bytes += size
            if n_bytes > self._max_bytes:
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def _files(self) -> Iterator[tuple[int, int, str]]:
        """Yield time, size and path of each of these files."""
        if os.path.islink(self.folder):
            return
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if not _NAME.fullmatch(entry.name):
                    continue
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    yield status.st_mtime_ns, status.st_size, entry.path


class PrivateFiles(SideFiles):
    """Converted networks, which only this user can have written and can read.

    Nothing is written or read in the directory of another user, or where others may
    write. The files that were used longest ago are removed first.

    Native code parses them: OpenVINO believes what is in a file that it has written,
    and so do other libraries. A flipped bit gives other rows, and a file of a stranger
    runs in this process. A digest that lies in the file keeps out the first and not the
    second. So the digest has a key, the user's secret, which lies elsewhere.

    Parameters
    ----------
    directory : CacheDirectory
    max_size : int or None
        Bytes that the whole cache may take.
    """

    _magic = b"skdeepfeat own file 1\n"
    _permissions = 0o600

    def __init__(self, directory: CacheDirectory, max_size: int | None):
        max_bytes = _MAX_NETWORKS
        if max_size is not None:
            max_bytes = min(max_bytes, max_size // _SHARE)
        super().__init__(directory, "networks", max_bytes, max_bytes)

    def __contains__(self, key: str) -> bool:
        """Return whether there is a file, which may turn out to be of no use."""
        return self._is_usable() and os.path.isfile(self._path(key))

    def read(self, key: str) -> bytes | None:
        found = super().read(key)
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(self._path(key))
        return found

    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(size for _, size, _ in self._files())

    def _is_usable(self) -> bool:
        if self._directory.problem is not None:
            return False
        try:
            folder = os.lstat(self.folder)
            return (
                is_own(os.stat(self._directory.path), 0o022)
                and stat.S_ISDIR(folder.st_mode)
                and is_own(folder, 0o077)
            )
        except OSError:
            return False

    def _make_folder(self) -> None:
        # The directory of the cache exists when networks are run. A worker on another
        # machine may lack it, and does not create one.
        with contextlib.suppress(FileExistsError):
            if is_own(os.stat(self._directory.path), 0o022):
                os.mkdir(self.folder, 0o700)
        if not self._is_usable():
            raise StoreUnavailable(f"{self.folder} is not this user's alone")
        if find_secret(create=True) is None:
            raise StoreUnavailable("there is no place for a secret of this user")

    def _digest(self, key: str, data: bytes) -> bytes | None:
        secret = find_secret()
        return secret and blake3(key.encode() + b"\0", key=secret).update(data).digest()


def find_secret(*, create: bool = False) -> bytes | None:
    """Return a secret of the user, by which files that this user has written are known.

    It lies outside the cache. So who can write to a cache, or has made one that the
    user unpacks, still cannot make a file that passes for the user's own.

    Parameters
    ----------
    create : bool, default=False
        Create one if there is none, or if other users may have read the existing one.

    Returns
    -------
    bytes or None
        None if there is none: no home directory, one that cannot be written, one of
        another user.
    """
    try:
        folder = platformdirs.user_state_dir("skdeepfeat", appauthor=False)
        folder = os.path.expanduser(folder)
    except (RuntimeError, OSError):  # what platformdirs raises without a home directory
        return None
    if not os.path.isabs(folder):
        return None
    path = os.path.join(folder, "secret")
    try:
        if create:
            os.makedirs(folder, 0o700, exist_ok=True)
        if not is_own(os.stat(folder), 0o022):
            return None
        found = _read_secret(path)
        if found is None and create:
            _write_secret(path)
            found = _read_secret(path)
        return found
    except OSError as error:
        logger.debug("%s cannot be used: %s", path, error)
        return None


def is_own(status: os.stat_result, forbidden: int) -> bool:
    """Return whether something is this user's and lacks some permissions.

    Parameters
    ----------
    status : os.stat_result
    forbidden : int
        The permissions that it must not have, such as 0o022.
    """
    if not hasattr(os, "geteuid"):
        return True  # Windows: the files in a user's profile belong to the user
    return status.st_uid == os.geteuid() and not status.st_mode & forbidden


def _read_secret(path: str) -> bytes | None:
    try:
        with open_plain(path) as file:
            if not is_own(os.fstat(file.fileno()), 0o077):
                return None
            secret = file.read(_SECRET_BYTES + 1)
    except FileNotFoundError:
        return None
    return secret if len(secret) == _SECRET_BYTES else None


def _write_secret(path: str) -> None:
    """Write a secret, unless another process has just done so."""
    temporary = f"{path}.{secrets.token_hex(8)}"
    try:
        with open_plain(temporary, "xb", permissions=0o600) as file:
            file.write(os.urandom(_SECRET_BYTES))
        try:
            # Unlike renaming, linking fails if the name is taken.
            os.link(temporary, path)
        except FileExistsError:
            # `_read_secret` refuses everything but plain files. A file that another
            # process has just written stays.
            if _read_secret(path) is None:
                os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
