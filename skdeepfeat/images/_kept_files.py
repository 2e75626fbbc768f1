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
    patience : float, default=0.0
        Seconds to wait for room while the caller waits for files. It may use those
        that it has, which makes room.

    Attributes
    ----------
    part_bytes : int
        What the caller should use at a time. The rest is for files that are read
        before an earlier one is done.
    was_full : bool
        Whether there was no room for a file since the caller began to wait.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, patience: float = 0.0):
        self.part_bytes = 3 * max_bytes // 4
        self.was_full = False
        self._patience = patience
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
        """Return whether a file is to be kept, for which there may be a wait.

        Parameters
        ----------
        n_bytes : int
            The size of the file. `put` or `release` follows.
        """
        with self._changed:
            if n_bytes > self._max_bytes:
                return False
            while self._n_bytes + n_bytes > self._max_bytes:
                if not self._is_awaited:
                    self._changed.wait()
                elif not self._changed.wait(self._patience) and self._is_awaited:
                    # The room may be taken by files that nobody can decode before
                    # those that the caller waits for.
                    self.was_full = True
                    return False
            self._n_bytes += n_bytes
            return True

    def n_bytes_of(self, path: str) -> int:
        """Return how much room a file takes: none if it is not kept."""
        return len(self._contents.get(path, b""))

    def release(self, n_bytes: int) -> None:
        """Give room back."""
        with self._changed:
            self._n_bytes -= n_bytes
            self._changed.notify_all()

    def set_awaited(self, is_awaited: bool) -> None:
        """Say whether the caller waits for what is being read, or is busy with it."""
        with self._changed:
            self._is_awaited = is_awaited
            self.was_full = False
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
