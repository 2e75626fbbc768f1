"""Converted networks next to a cache: native code parses them, so only the user's own.

OpenVINO believes what is in a file that it has written, and so do other libraries: a
flipped bit gives other rows, and a file of a stranger runs in this process. A digest
that lies in the file keeps out the first and not the second. So the digest has a key,
the user's secret, which lies elsewhere.
"""

import contextlib
import logging
import os
import stat

from blake3 import blake3

from ._directory import CacheDirectory
from ._errors import StoreUnavailable
from ._secret import find_secret, is_own
from ._side_files import SideFiles

logger = logging.getLogger(__name__)

# Bytes of all converted networks. ResNet-50 has 94 MB. Never more than a tenth of what
# the cache may take.
_MAX_NETWORKS = 2**30
_SHARE = 10


def converted_of(directory: CacheDirectory, max_size: int | None) -> "PrivateFiles":
    """Return the converted networks of a cache.

    Parameters
    ----------
    directory : CacheDirectory
    max_size : int or None
        Bytes that the whole cache may take.
    """
    max_bytes = _MAX_NETWORKS
    if max_size is not None:
        max_bytes = min(max_bytes, max_size // _SHARE)
    return PrivateFiles(directory, "networks", max_bytes, max_bytes)


class PrivateFiles(SideFiles):
    """Side files that only this user can have written, and only this user can read.

    Nothing is written or read in the directory of another user, or where others may
    write. The files that were used longest ago are removed first.
    """

    _magic = b"skdeepfeat own file 1\n"
    _permissions = 0o600

    def __contains__(self, key: str) -> bool:
        """Return whether there is a file, which may turn out to be of no use."""
        return self._is_usable() and os.path.isfile(self._path(key))

    def read(self, key: str) -> bytes | None:
        found = super().read(key)
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(self._path(key))
        return found

    def write(self, key: str, data: bytes) -> None:
        try:
            self._make_folder()
        except (OSError, StoreUnavailable) as error:
            logger.debug("%s cannot be kept: %s", self._path(key), error)
            return
        if find_secret(create=True) is not None:
            super().write(key, data)

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
        # The directory of the cache is there when networks are run. A worker on another
        # machine, which may lack it, does not make one.
        with contextlib.suppress(FileExistsError):
            if is_own(os.stat(self._directory.path), 0o022):
                os.mkdir(self.folder, 0o700)
        if not self._is_usable():
            raise StoreUnavailable(f"{self.folder} is not this user's alone")

    def _digest(self, key: str, data: bytes) -> bytes | None:
        secret = find_secret()
        return secret and blake3(key.encode() + b"\0", key=secret).update(data).digest()
