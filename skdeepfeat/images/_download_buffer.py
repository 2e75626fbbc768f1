"""Downloads kept on disk for the moment between their digest and their pixels."""

import shutil
import tempfile
import threading
import weakref

__all__ = ["MAX_BYTES", "Spool"]

# Bytes. About 10,000 photographs of 100 kB. Beyond that a file is downloaded a second
# time when its pixels are wanted; /tmp is memory on some systems, so it is not more.
MAX_BYTES = 2**30
# The share of what is free in the temporary directory that is taken at most.
_SHARE_OF_FREE = 0.25


class Spool:
    """Some bytes by name, in one temporary file, up to a limit.

    The file has no name, or loses it when it is closed, so nothing stays behind
    however the process ends. All methods may be called from many threads.

    Parameters
    ----------
    max_bytes : int or None, default=None
        What does not fit is not kept. None is `MAX_BYTES`, or a quarter of what is
        free in the temporary directory, if that is less.
    """

    def __init__(self, max_bytes: int | None = None):
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._file = None
        self._end = 0
        self._places: dict[str, tuple[int, int]] = {}

    def put(self, name: str, data: bytes) -> bool:
        """Keep some bytes if there is room; return whether there was."""
        with self._lock:
            try:
                if self._max_bytes is None:
                    free = shutil.disk_usage(tempfile.gettempdir()).free
                    self._max_bytes = min(MAX_BYTES, int(_SHARE_OF_FREE * free))
                if self._end + len(data) > self._max_bytes:
                    return False
                if self._file is None:
                    self._file = tempfile.TemporaryFile(
                        prefix="skdeepfeat-downloads-", buffering=0
                    )
                    # Closed with us, not whenever the collector comes by.
                    weakref.finalize(self, self._file.close)
                self._file.seek(self._end)
                if self._file.write(data) != len(data):
                    return False
            except OSError:
                # The disk is full or there is none: this only saves downloads.
                self._max_bytes = 0
                return False
            self._places[name] = (self._end, len(data))
            self._end += len(data)
            return True

    def get(self, name: str) -> bytes | None:
        """Return what was kept under a name, or None."""
        with self._lock:
            if name not in self._places:
                return None
            start, n_bytes = self._places[name]
            try:
                self._file.seek(start)
                data = self._file.read(n_bytes)
            except OSError:
                return None
        return data if data is not None and len(data) == n_bytes else None
