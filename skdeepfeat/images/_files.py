"""Image files: their bytes, their content digests, and why they cannot be read."""

import contextlib
import errno
import functools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from blake3 import blake3

from skdeepfeat._utils._address import is_address
from skdeepfeat._utils._filestat import FileStat, file_stat, is_settled
from skdeepfeat.exceptions import BadImageError

from ._encoded_images import read_until
from ._image_limits import check_length
from ._image_source import FileIndex
from ._thread_pool import Share, hash_in_threads

# Seconds between two writes to the file-hash index. More would wear out the disk.
_SECONDS = 1.0

_CHUNK = 2**20  # bytes that are hashed at a time
# Files in one task of a thread. Submitting a task takes as long as hashing a small
# file, and much less than decoding it. The files of one task finish together.
_HASHED_AT_ONCE = 16
_KEPT_AT_ONCE = 4
# Minimum number of files in a part. Preparing the network for a part takes as long as
# a few images.
_LEAST_IN_PART = 16
# Files that are looked up in the index together.
_LOOKED_UP_AT_ONCE = 50_000
# Seconds to wait for more files after the first part.
_NEXT_SECONDS = 0.25
# The header of a file with at least this many bytes is checked before it is read.
_LARGE = 2**25

# Bytes of files that are kept. About 2,500 photographs of 100 kB.
MAX_BYTES = 2**28

_KINDS = (
    (stat.S_ISDIR, "a folder (load_image_folder reads a folder per class)"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class KeptFiles:
    """What was read of files to hash them, kept until it is decoded.

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
                    # Later files may occupy all the memory, while the caller waits for
                    # earlier ones.
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

    def part(self, paths) -> "KeptFiles":
        """Return some of the files, which are not kept here any longer."""
        found = KeptFiles()
        for path in paths:
            data = self.take(path)
            if data is not None:
                found._contents[path] = data
        return found


def absolute_path(path: str, folder: str) -> str:
    """Return `path` relative to `folder`, without following links."""
    # os.path.abspath would also fold "a/..", which differs if a is a symlink.
    if path[:1] == os.sep or os.path.isabs(path):
        return path
    return os.path.join(folder, path)


def read_file(path: str, limit: int | None, share: Share) -> bytes:
    """Return a file's content.

    Parameters
    ----------
    path : str
        Absolute.
    limit : int or None
        How many bytes it may have; None for any number.
    share : Share
        The memory is taken from it.

    Returns
    -------
    bytes

    Raises
    ------
    BadImageError
        If it cannot be read. Pipes and devices are refused, not waited for.
    """
    with _opened(path, limit) as (file, status):
        share.take(status.st_size)
        return read_until(file, limit, status.st_size)


def _digest_file(path, limit, check_large, kept):
    """Return the `digest_bytes` of a file and its state, or (BadImageError, None).

    The state is None if the digest must not be remembered: the file changed while it
    was read, or so shortly before that the next change might not be noticed.
    """
    started = time.time_ns()
    try:
        with _opened(path, limit) as (file, before):
            if before.st_size >= _LARGE:
                check_large(file)
                file.seek(0)
            hasher, n_bytes = blake3(), 0
            for chunk in _chunks(file, path, before.st_size, limit, kept):
                n_bytes += len(chunk)
                check_length(n_bytes, limit)  # it may grow while it is read
                hasher.update(chunk)
            after = file_stat(path, os.fstat(file.fileno()))
    except BadImageError as error:
        return error, None
    if not n_bytes:
        return BadImageError("it is empty (0 bytes)"), None
    is_unchanged = after == file_stat(path, before)
    is_known = is_unchanged and is_settled(after, started)
    return hasher.digest(), after if is_known else None


def _chunks(file, path, size, limit, kept):
    """Yield the content of an open file: as a whole if it is kept."""
    if kept is None or not kept.reserve(size):
        while chunk := file.read(_CHUNK):
            yield chunk
        return
    is_kept = False
    try:
        data = read_until(file, limit, size)
        is_kept = len(data) == size  # else it is just being written
        if is_kept:
            kept.put(path, data)
        yield data
    finally:
        if not is_kept:
            kept.release(size)


@contextlib.contextmanager
def _opened(path, limit):
    """Open a regular file of at most `limit` bytes; turn errors into BadImageErrors.

    Yields
    ------
    file : binary file without a buffer
    status : os.stat_result
    """
    status = None
    try:
        # Checked before it is opened, because opening a device may already have an
        # effect. O_NONBLOCK, in case it is replaced by a pipe in between.
        before = os.stat(path)
        _refuse_irregular(before)
        check_length(before.st_size, limit)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            _refuse_irregular(status)
            yield file, status
    except BadImageError:
        raise
    except (OSError, ValueError) as error:
        raise BadImageError(_explain(error, path)) from error
    except MemoryError as error:
        raise BadImageError(
            f"there is not enough memory to read its {status.st_size} bytes"
        ) from error


class Remembering(contextlib.AbstractContextManager):
    """Passes digests to an index: every second, and at the end, however it ends.

    Parameters
    ----------
    file_index : FileIndex or None
    """

    def __init__(self, file_index: FileIndex | None):
        self._index = file_index
        self._known: list[tuple[FileStat, bytes]] = []
        self._next = time.monotonic() + _SECONDS

    def __exit__(self, *error):
        self._flush()

    def add(self, file: FileStat, digest: bytes) -> None:
        """Remember the digest of a file, soon."""
        self._known.append((file, digest))
        if time.monotonic() >= self._next:
            self._flush()

    def _flush(self):
        known, self._known = self._known, []
        if known and self._index is not None:
            self._index.remember(*map(list, zip(*known, strict=True)))
        self._next = time.monotonic() + _SECONDS


def ignore(n: int) -> None:
    """Do nothing: the default of `on_done`."""


def digest_files(
    paths: Sequence[str],
    file_index: FileIndex | None,
    on_done: Callable[[int], object] | None,
    limit: int | None,
    check_large: Callable[[BinaryIO], object],
    kept: KeptFiles | None = None,
    seconds: float | None = None,
) -> Iterator[dict[str, bytes | BadImageError]]:
    """Yield the content digest of files, or why there is none.

    Parameters
    ----------
    paths : sequence of str
        Absolute. A file that is named twice is read once.
    file_index : FileIndex or None
        Unchanged files that it knows are not read.
    on_done : callable or None
        Called, from this thread, with the number of further `paths` that are done.
    limit : int or None
        How many bytes a file may have; None for any number.
    check_large : callable
        Called with a large file, open, before it is read; raises BadImageError if it
        should not be.
    kept : KeptFiles or None, default=None
        Where to keep what is read.
    seconds : float or None, default=None
        After this time, or if `kept` is almost full, yield what is done. Meanwhile the
        next files are read. None yields all at once.

    Yields
    ------
    dict of str to (bytes or BadImageError)
        By path, in the order of `paths`. At least one, which may be empty.
    """
    results: dict[str, bytes | BadImageError | None] = dict.fromkeys(paths)
    if file_index is not None:
        _look_up(results, file_index)
    unknown = [path for path, result in results.items() if result is None]
    on_done = on_done or ignore
    # A path that occurs several times counts as unknown once.
    on_done(len(paths) - len(unknown))
    if not unknown:
        yield results  # type: ignore[misc]
        return
    done = {path: result for path, result in results.items() if result is not None}
    digest = functools.partial(
        _digest_file, limit=limit, check_large=check_large, kept=kept
    )
    n_per_task = _HASHED_AT_ONCE if kept is None else _KEPT_AT_ONCE
    with contextlib.ExitStack() as stack:
        digests = hash_in_threads(digest, unknown, n_per_task)
        stack.enter_context(contextlib.closing(digests))
        remembering = stack.enter_context(Remembering(file_index))
        if kept is not None:  # finally lets threads continue that wait for memory
            stack.callback(kept.set_awaited, True)
        started, n_bytes = time.monotonic(), 0
        for path, (result, file) in zip(unknown, digests, strict=True):
            done[path] = result
            if file is not None:
                remembering.add(file, result)
            on_done(1)
            if seconds is None or kept is None:
                continue
            n_bytes += kept.n_bytes_of(path)
            is_late = time.monotonic() - started >= seconds
            is_much = n_bytes >= kept.part_bytes or kept.was_full
            if is_much or (is_late and len(done) >= _LEAST_IN_PART):
                yield from _lend(done, kept)
                done, started, n_bytes = {}, time.monotonic(), 0
                seconds = min(seconds, _NEXT_SECONDS)
        yield done


def _lend(done, kept):
    """Yield a part; files that were not decoded meanwhile are not kept any longer."""
    kept.set_awaited(False)
    yield done
    for path in done:
        kept.take(path)
    kept.set_awaited(True)


def _look_up(results, file_index):
    """Fill in the digests that are known, and which files cannot be used."""
    # In order, as the index has them, and in parts, so that memory is bounded.
    places = sorted(results)
    for start in range(0, len(places), _LOOKED_UP_AT_ONCE):
        stats = []
        for path in places[start : start + _LOOKED_UP_AT_ONCE]:
            # Spelled out, because a warm run over 50,000 files does little else.
            try:
                status = os.stat(path)
                if not stat.S_ISREG(status.st_mode):
                    _refuse_irregular(status)
                stats.append(file_stat(path, status))
            except BadImageError as error:
                results[path] = error
            except (OSError, ValueError) as error:
                results[path] = BadImageError(_explain(error, path))
        for file, digest in zip(stats, file_index.lookup(stats), strict=True):
            results[file.path] = digest


def _refuse_irregular(status):
    if not stat.S_ISREG(status.st_mode):
        names = [name for test, name in _KINDS if test(status.st_mode)]
        raise BadImageError(f"it is {(names or ['special'])[0]}, not an image file")


def _explain(error, path):
    if isinstance(error, ValueError):
        return f"it is not a valid path ({error})"
    if isinstance(error, PermissionError):
        return "there is no permission to read it"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"there is no such file{home_hint(path)}"
    return f"it cannot be read ({error.strerror or error})"


def home_hint(path: str) -> str:
    """Return a hint in brackets if the path begins with a home folder, else ``""``."""
    name = path[path.find(os.sep + "~") + 1 :]
    if name.startswith("~") and os.path.exists(os.path.expanduser(name)):
        return " ('~' is not expanded: use os.path.expanduser)"
    return ""


def refuse_address(path: str) -> None:
    """Raise BadImageError if what should be a path is an address."""
    if not is_address(path):
        return
    if path.lower().startswith("file://"):
        raise BadImageError(
            "it is a URL: pass the path alone, without 'file://', or pass "
            "storage_options={} to have fsspec read it"
        )
    raise BadImageError(
        "remote paths are read only on request: pass storage_options={} to have fsspec "
        "read it, or download the file first"
    )
