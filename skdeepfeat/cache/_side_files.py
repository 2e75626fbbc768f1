"""Small files next to a cache, in a folder of limited size.

What they hold can be found out again, so whatever is wrong with one, it is not there.
"""

import contextlib
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator

from .._utils._digests import digest_bytes
from .._utils._plain_file import open_plain
from ._directory import CacheDirectory
from ._errors import StoreUnavailable

logger = logging.getLogger(__name__)

_DIGEST_BYTES = 32
# Of a file, and of one that is being written. Whatever else is in the folder is not
# ours: the user may have named a directory that has a folder "notes" already.
_NAME = re.compile(r"[0-9a-f]{32}(\.[0-9a-f]{16})?")

# Bytes of all notes and of one. The usual note about a network has 1 KB.
_MAX_NOTES = 2**23
_MAX_NOTE = 2**18


def notes_of(directory: CacheDirectory) -> "SideFiles":
    """Return the notes of a cache: small facts that take long to find out.

    Like rows, they may come from anybody who can write to the cache. They are data,
    which their reader has to check.
    """
    return SideFiles(directory, "notes", _MAX_NOTES, _MAX_NOTE)


class SideFiles:
    """Files by key, each with a digest.

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
    # Of new files; None for those of the cache.
    _permissions: int | None = None

    def __init__(
        self, directory: CacheDirectory, name: str, max_bytes: int, max_file_bytes: int
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
                data = file.read(size)  # not more, should it grow
        except OSError:
            return None
        digest = self._digest(key, data)
        if not digest or not secrets.compare_digest(head, self._magic + digest):
            return None
        return data

    def write(self, key: str, data: bytes) -> None:
        """Write a file, or replace it; other readers see all of it or nothing."""
        head = self._magic + (self._digest(key, data) or b"")
        if len(head) + len(data) > self._max_file_bytes:
            return
        temporary = f"{self._path(key)}.{secrets.token_hex(8)}"
        try:
            self._make_folder()
            permissions = self._permissions or self._directory.permissions
            with open_plain(temporary, "xb", permissions=permissions) as file:
                file.write(head)
                file.write(data)
            os.replace(temporary, self._path(key))
            self._remove_oldest()
        except (OSError, StoreUnavailable) as error:
            logger.debug("%s cannot be written: %s", temporary, error)
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
        self._directory.make()
        if os.path.islink(self.folder):
            raise StoreUnavailable(f"{self.folder} is a link, which is not followed")
        mode = 0o700 if self._directory.is_default else 0o777
        os.makedirs(self.folder, mode, exist_ok=True)

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
