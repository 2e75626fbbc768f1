"""Image files: their bytes, their content digests, and what keeps them from us."""

import contextlib
import errno
import functools
import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import BinaryIO, Protocol

from skdeepfeat._utils._address import is_address
from skdeepfeat._utils._digests import digest_chunks
from skdeepfeat._utils._filestat import FileStat, is_settled
from skdeepfeat.exceptions import BadImageError

from ._budget import Share
from ._cells import read_until
from ._image_limits import check_length
from ._thread_pool import ThreadPool

__all__ = [
    "FileMemo",
    "Remembering",
    "absolute_path",
    "digest_files",
    "home_hint",
    "ignore",
    "read_file",
    "refuse_address",
    "working_folder",
]


class FileMemo(Protocol):
    """Remembers the content digest of files between runs."""

    def lookup(self, stats: list[FileStat]) -> list[bytes | None]:
        """Return the digest of each file, None where it is not known."""
        ...

    def remember(self, stats: list[FileStat], digests: list[bytes]) -> None:
        """Keep the digests of files."""
        ...


# Files between two visits to the memo at most, and the most that wait in the pool.
_WINDOW = 4096
# Between two visits in a window; less would wear out the disk for little.
_SECONDS = 1.0
_PER_TASK = 16

_CHUNK = 2**20  # bytes that are hashed at a time
# The header of a file with at least this many bytes is checked before it is read.
_LARGE = 2**25

_KINDS = (
    (stat.S_ISDIR, "a folder (load_image_folder reads a folder per class)"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def absolute_path(path: str, folder: str) -> str:
    """Return `path` as seen from `folder`, without following or resolving anything."""
    # os.path.abspath would also fold "a/..", which is another file if a is a symlink.
    if path[:1] == os.sep or os.path.isabs(path):
        return path
    return os.path.join(folder, path)


def working_folder() -> str:
    """Return the working folder, empty if it is gone."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""  # deleted under us: relative paths find nothing, absolute ones do


def read_file(path: str, limit: int | None = None, share: Share | None = None) -> bytes:
    """Return a file's content.

    Parameters
    ----------
    path : str
        Absolute.
    limit : int or None, default=None
        How many bytes it may have; None for any number.
    share : Share or None, default=None
        Takes the bytes of memory for it.

    Returns
    -------
    bytes
        Not empty.

    Raises
    ------
    BadImageError
        If it cannot be read. Pipes and devices are refused, not waited for.
    """
    with _opened(path, limit) as (file, status):
        if share is not None:
            share.take(status.st_size)
        data = read_until(file, limit, status.st_size)
    if not data:
        raise BadImageError("it is empty (0 bytes)")
    return data


def _digest_file(path, limit, look):
    """Return the digest of a file's content, and the file as it stood meanwhile.

    The latter is None if it changed meanwhile or so shortly before that a change to
    come might not show.
    """
    started = time.time_ns()
    with _opened(path, limit) as (file, before):
        if before.st_size >= _LARGE and look is not None:
            look(file)
            file.seek(0)
        digest, n_bytes = digest_chunks(_chunks(file, limit))
        after = os.fstat(file.fileno())
    if not n_bytes:
        raise BadImageError("it is empty (0 bytes)")
    found = _file_stat(path, after)
    stood_still = found == _file_stat(path, before)
    return digest, found if stood_still and is_settled(found, started) else None


def _chunks(file, limit):
    n_bytes = 0
    while chunk := file.read(_CHUNK):
        n_bytes += len(chunk)
        check_length(n_bytes, limit)  # it may grow while it is read
        yield chunk


@contextlib.contextmanager
def _opened(path, limit):
    """Open a regular file of at most `limit` bytes; have what fails be said in words.

    Yields
    ------
    file : binary file without a buffer
    status : os.stat_result
    """
    # Looked at before it is opened, because opening a device may already act on it;
    # and not waited for, in case it turns into a pipe in between.
    check_length(_stat_regular(path).st_size, limit)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    status = None
    try:
        with open(os.open(path, flags), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            _refuse_irregular(status)
            yield file, status
    except OSError as error:
        raise BadImageError(_in_words(error, path)) from error
    except MemoryError as error:
        raise BadImageError(
            f"there is not enough memory to read its {status.st_size} bytes"
        ) from error


class Remembering:
    """Hands digests to a memo: every second, and at the end, whatever ends it.

    Parameters
    ----------
    memo : FileMemo or None
    """

    def __init__(self, memo: FileMemo | None):
        self._memo = memo
        self._known: list[tuple[FileStat, bytes]] = []
        self._next = time.monotonic() + _SECONDS

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._flush()

    def add(self, file: FileStat, digest: bytes) -> None:
        """Have the digest of a file remembered, soon."""
        self._known.append((file, digest))
        if time.monotonic() >= self._next:
            self._flush()

    def _flush(self):
        known, self._known = self._known, []
        if known and self._memo is not None:
            self._memo.remember(*map(list, zip(*known, strict=True)))
        self._next = time.monotonic() + _SECONDS


def ignore(n: int) -> None:
    """Do nothing, where nobody wants to know how many files are done."""


def digest_files(
    paths: Sequence[str],
    memo: FileMemo | None,
    n_threads: int,
    on_done: Callable[[int], object] | None = None,
    limit: int | None = None,
    look: Callable[[BinaryIO], object] | None = None,
) -> list[bytes | BadImageError]:
    """Return the content digest of each file, or why there is none.

    Parameters
    ----------
    paths : sequence of str
        Absolute. A file that is named twice is read once.
    memo : FileMemo or None
        Files that it knows, unchanged, are not read.
    n_threads : int
        How many files are read at the same time.
    on_done : callable or None, default=None
        Told how many further `paths` are done, from this thread.
    limit : int or None, default=None
        How many bytes a file may have; None for any number.
    look : callable or None, default=None
        Called with a large file, open, before it is read; raises BadImageError if it
        should not be.

    Returns
    -------
    list of bytes or BadImageError, in the order of `paths`
    """
    results: dict[str, bytes | BadImageError | None] = dict.fromkeys(paths)
    if memo is not None:
        _recall(results, memo)
    unknown = [path for path, result in results.items() if result is None]
    on_done = on_done or ignore
    # The other places where a file is named are done with its first.
    on_done(len(paths) - len(unknown))
    if unknown:
        digest = functools.partial(_digest_each, limit=limit, look=look)
        with ThreadPool(n_threads, "skdeepfeat-hash") as pool:
            for start in range(0, len(unknown), _WINDOW):
                window = unknown[start : start + _WINDOW]
                _hash(window, results, memo, pool, digest, on_done)
    return [results[path] for path in paths]


def _recall(results, memo):
    """Fill in what the memo knows, and the files that are not there at all."""
    stats = []
    for path in results:
        # Spelled out, because a warm run over 50,000 files does little else.
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                _refuse_irregular(status)
            stats.append(
                FileStat(path, status.st_size, status.st_mtime_ns, status.st_ino)
            )
        except BadImageError as error:
            results[path] = error
        except (OSError, ValueError) as error:
            results[path] = BadImageError(_in_words(error, path))
    for file, digest in zip(stats, memo.lookup(stats), strict=True):
        results[file.path] = digest


def _hash(paths, results, memo, pool, digest, on_done):
    tasks = [paths[i : i + _PER_TASK] for i in range(0, len(paths), _PER_TASK)]
    with Remembering(memo) as remembering:
        for task, answers in zip(tasks, pool.map(digest, tasks), strict=True):
            for path, (result, file) in zip(task, answers, strict=True):
                results[path] = result
                if file is not None:
                    remembering.add(file, result)
            on_done(len(task))


def _digest_each(paths, limit, look):
    answers = []
    for path in paths:
        try:
            answers.append(_digest_file(path, limit, look))
        except BadImageError as error:
            answers.append((error, None))
    return answers


def _stat_regular(path):
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise BadImageError(_in_words(error, path)) from error
    _refuse_irregular(status)
    return status


def _refuse_irregular(status):
    if not stat.S_ISREG(status.st_mode):
        names = [name for test, name in _KINDS if test(status.st_mode)]
        raise BadImageError(f"it is {(names or ['special'])[0]}, not an image file")


def _file_stat(path, status):
    return FileStat(path, status.st_size, status.st_mtime_ns, status.st_ino)


def _in_words(error, path):
    if isinstance(error, ValueError):
        return f"it is not a valid path ({error})"
    if isinstance(error, PermissionError):
        return "there is no permission to read it"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"there is no such file{home_hint(path)}"
    return f"it cannot be read ({error.strerror or error})"


def home_hint(path: str) -> str:
    """Return a hint in brackets if the path means a home folder, else ``""``."""
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
            "it is a URL: give the path alone, without 'file://', or give "
            "storage_options={} to have fsspec read it"
        )
    raise BadImageError(
        "remote paths are read only on request: pass storage_options={} to have fsspec "
        "read it, or download the file first"
    )
