"""What was read of files to hash them, kept until it is decoded."""

import threading

# Bytes. About 2,500 photographs of 100 kB.
MAX_BYTES = 2**28


class KeptFiles:
    """Contents of files by path, of limited size in all.

    All methods may be called from many threads.

    Parameters
    ----------
    max_bytes : int
        Files beyond that are read a second time when they are decoded.
    """

    def __init__(self, max_bytes: int = MAX_BYTES):
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._contents: dict[str, bytes] = {}
        self._changed = threading.Condition()
        self._is_awaited = True

    def __getstate__(self):
        return self._contents

    def __setstate__(self, contents):
        self.__init__()  # type: ignore[misc]
        self._contents = contents

    def reserve(self, n_bytes: int) -> bool:
        """Return whether a file is to be kept; or wait for room if the caller is busy.

        Parameters
        ----------
        n_bytes : int
            The size of the file. `put` or `release` follows.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_awaited or self._fits(n_bytes))
            if not self._fits(n_bytes):
                return False
            self._n_bytes += n_bytes
            return True

    def _fits(self, n_bytes):
        return self._n_bytes + n_bytes <= self._max_bytes

    def release(self, n_bytes: int) -> None:
        """Give room back."""
        with self._changed:
            self._n_bytes -= n_bytes
            self._changed.notify_all()

    def set_awaited(self, is_awaited: bool) -> None:
        """Say whether the caller waits for what is being read.

        If so, files that do not fit are hashed without being kept, because the room
        may be taken by files that nobody can decode before those before them.
        """
        with self._changed:
            self._is_awaited = is_awaited
            self._changed.notify_all()

    def put(self, path: str, data: bytes) -> None:
        """Keep the content of a file, for which room was reserved."""
        with self._changed:
            self._contents[path] = data

    def take(self, path: str) -> bytes | None:
        """Return the content of a file, which is not kept any longer, or None."""
        with self._changed:
            data = self._contents.pop(path, None)
            if data is not None:
                self._n_bytes -= len(data)
                self._changed.notify_all()
            return data

    def drop_all(self) -> None:
        """Forget the contents that are kept now."""
        for path in list(self._contents):
            self.take(path)

    def part(self, paths) -> "KeptFiles":
        """Return some of the files, which are not kept here any longer."""
        found = KeptFiles()
        for path in paths:
            data = self.take(path)
            if data is not None:
                found._contents[path] = data
        return found
