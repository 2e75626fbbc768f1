"""How much of the disk goes to what."""

import dataclasses

from ._schema import PAGE_SIZE

__all__ = ["Limits"]

_MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Limits:
    """How the bytes that the user grants are shared out.

    Attributes
    ----------
    max_bytes : int or None
        What file and write-ahead log may take together; None for no limit.
    """

    max_bytes: int | None

    @property
    def wal_pages(self) -> int:
        """Pages that the write-ahead log may grow to, more or less."""
        if self.max_bytes is None:
            return 512
        return min(max(self._log_bytes // (2 * PAGE_SIZE), 4), 512)

    @property
    def _log_bytes(self) -> int:
        return min(max(self.max_bytes // 16, 4 * _MIB), self.max_bytes // 4)

    @property
    def file_bytes(self) -> int | None:
        """Bytes that the file itself may take, or None."""
        return None if self.max_bytes is None else self.max_bytes - self._log_bytes

    @property
    def commit_bytes(self) -> int:
        """Bytes of rows that are worth a commit of their own."""
        if self.max_bytes is None:
            return 16 * _MIB
        return min(max(self.file_bytes // 16, PAGE_SIZE), 16 * _MIB)

    @property
    def n_files(self) -> int:
        """How many files' digests are remembered, at about 150 bytes each."""
        if self.max_bytes is None:
            return 1_000_000
        return min(self.max_bytes // 1000, 1_000_000)
