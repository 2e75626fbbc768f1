"""Downloads kept on disk between the moments when they are hashed and decoded."""

import shutil
import tempfile
import threading
import weakref

# Bytes. About 10,000 photographs of 100 kB. Files beyond that are downloaded a second
# time when they are decoded; /tmp is memory on some systems, so it is not more.
MAX_BYTES = 2**30
# The fraction of the free space in the temporary directory that is used at most.
_FRACTION_OF_FREE = 0.25


class DownloadBuffer:
    """Files by name, in one temporary file of limited size.

    The temporary file has no name, or loses it when it is closed, so nothing is left
    behind however the process ends. All methods may be called from many threads.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._file = None
        self._max_bytes = 0
        self._end = 0
        self._places: dict[str, tuple[int, int]] = {}

    def put(self, name: str, data: bytes) -> None:
        """Keep a file if there is room."""
        with self._lock:
            try:
                if self._file is None:
                    self._open()
                if self._end + len(data) > self._max_bytes:
                    return
                self._file.seek(self._end)
                if self._file.write(data) != len(data):
                    return
            except OSError:
                return  # the disk is full, or there is no disk
            self._places[name] = (self._end, len(data))
            self._end += len(data)

    def _open(self):
        free = shutil.disk_usage(tempfile.gettempdir()).free
        self._max_bytes = min(MAX_BYTES, int(_FRACTION_OF_FREE * free))
        self._file = tempfile.TemporaryFile(prefix="skdeepfeat-downloads-", buffering=0)
        # Otherwise the garbage collector closes it, with a ResourceWarning.
        weakref.finalize(self, self._file.close)

    def get(self, name: str) -> bytes | None:
        """Return a file, or None if it was not kept."""
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
