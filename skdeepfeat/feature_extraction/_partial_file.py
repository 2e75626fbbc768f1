"""Features on disk while they are computed, and after an interruption."""

import contextlib
import errno
import functools
import io
import json
import logging
import math
import os
import re
import shutil
import stat
import time

import numpy as np
from blake3 import blake3

from .._utils._digests import digest_description
from .._utils._plain_file import lock_plain, open_plain, write_atomically
from .._utils._warn import warn
from ..exceptions import CacheWarning

logger = logging.getLogger(__name__)

# Seconds of work that a power failure may cost. A killed process loses at most this
# much, and the current batch.
_COMMIT_INTERVAL = 1.0
# The files that may be in the folder. Some names are temporary ones of
# `write_atomically`, or of NFS for a file that is removed while it is open.
_OWN_NAMES = re.compile(
    r"lock|job\.json|sums|rows\.npy|assembled\.parquet|(assembled|replaced)\.zarr"
    r"|\.job\.json\.[0-9a-f]{16}|\.nfs[0-9a-f]+|\.filelock-probe-[0-9a-f]+"
)
_SUM_SIZE = 8  # bytes of a checksum; all zero if there is no row
_CONTEXT = "skdeepfeat 2026-11-26 rows of an interrupted job v1"
_BLOCK = 2**24  # bytes of rows that are compared with their checksums at a time
_MAX_JOB_BYTES = 2**20
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextlib.contextmanager
def hold(folder):
    """Create a folder if needed, and lock it for the body of a ``with``.

    The lock file is in the folder and is removed with it. A process that has waited for
    a lock that was removed meanwhile tries again.

    Parameters
    ----------
    folder : pathlib.Path

    Raises
    ------
    FileExistsError
        If the folder or the lock is a link, or belongs to another user.
    """
    path = folder / "lock"

    def say_that_it_waits():
        logger.warning("%s: another process is writing it; waiting", folder)

    while True:
        # A broken link also raises FileExistsError. `_refuse_foreign` reports it.
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        with contextlib.ExitStack() as stack:
            try:
                _refuse_foreign(folder)
                # Open while the lock is held, so that its inode is not reused.
                seen = stack.enter_context(open_plain(path, "ab"))
                stack.enter_context(lock_plain(path, say_that_it_waits))
                current = os.path.samestat(os.fstat(seen.fileno()), os.lstat(path))
            except FileNotFoundError:
                continue  # the process that held it removed the folder
            if not current:
                continue
            yield
            return


def _refuse_foreign(folder):
    """Raise for a link, and for another user's folder where everyone may write.

    The owner of the folder could replace the files in it at any moment.
    """
    status = os.lstat(folder)
    is_own = not hasattr(os, "geteuid") or status.st_uid in (os.geteuid(), 0)
    is_open = bool(os.stat(folder.absolute().parent).st_mode & stat.S_IWOTH)
    if not stat.S_ISDIR(status.st_mode) or (is_open and not is_own):
        raise FileExistsError(
            f"The 'path' parameter must leave {os.fspath(folder)!r} for intermediate "
            "results. It is a link or belongs to another user, so it is not used: "
            "remove it, or choose another 'path'."
        )


@contextlib.contextmanager
def explain_full_disk(folder):
    """Say in the error about a full disk that nothing is lost and how to continue."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno,
            f"There is no space left to write {os.fspath(folder)!r} "
            f"({os.strerror(error.errno)}). Features computed so far are kept there: "
            "free some space and call again to continue",
        ) from error


class Partial(contextlib.AbstractContextManager):
    """The features of one job while they are computed, in a folder next to the file.

    ``rows.npy`` has space for every feature row, ``sums`` a checksum for every row that
    has been written, and ``job.json`` describes the job. The checksums cover the job
    and the index of the row, too. When a job is resumed, only rows that match their
    checksums count as computed. So any damage to the folder costs work, but never gives
    a wrong row.

    Parameters
    ----------
    folder : pathlib.Path
        Locked by the caller (see `hold`).
    job : dict of JSON types
        What the rows are. Rows of an equal job are reused, those of another job are
        removed.
    shape : tuple of (int, int)
        Number of images and of features.

    Attributes
    ----------
    done : ndarray of bool, shape (n_images,)
        Which rows are valid.

    Warns
    -----
    CacheWarning
        If rows do not match their checksums.
    """

    def __init__(self, folder, job, shape):
        self.folder = folder
        self.rows_path = folder / "rows.npy"
        self.shape = shape
        self._header = _npy_header(shape)
        self._row_bytes = 4 * shape[1]
        self._key = blake3(_as_bytes(job), derive_key_context=_CONTEXT).digest()
        self._filled = None  # first and last index written since the commit
        self._last_commit = time.monotonic()
        with contextlib.ExitStack() as stack, explain_full_disk(folder):
            noted = self.job_in(folder)
            if not os.path.lexists(self.rows_path) or noted not in (None, job):
                noted = None
                for name in ("job.json", "sums", "rows.npy"):
                    (folder / name).unlink(missing_ok=True)
            # Unbuffered, so that closing does not write again what a full disk refused.
            open_file = functools.partial(
                open_plain, mode="r+b", buffering=0, create=True
            )
            self._rows = stack.enter_context(open_file(self.rows_path))
            self._file_of_sums = stack.enter_context(open_file(folder / "sums"))
            self._prepare_rows()
            self._read_sums()
            if noted is None:
                record = with_checksum({"job": job})
                write_atomically(folder / "job.json", _as_bytes(record))
            self._find_valid_rows()
            self._files = stack.pop_all()

    @staticmethod
    def is_in_the_way(folder):
        """Return whether there is something that was not written by this class.

        It would be removed with the folder. A link is never written by this class.
        """
        if os.path.islink(folder):
            return True
        try:
            with os.scandir(folder) as entries:
                return not all(map(_is_own, entries))
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            return True

    @staticmethod
    def job_in(folder):
        """Return the job whose rows a folder holds, or None if it is not known."""
        record = read_json(folder / "job.json", _MAX_JOB_BYTES)
        return record["job"] if is_intact(record, "job") else None

    def n_bytes(self):
        """Return the size of the rows on the disk."""
        return len(self._header) + self.shape[0] * self._row_bytes

    def _prepare_rows(self):
        """Give the file of rows the header and the size that it must have."""
        file = self._rows
        if file.read(len(self._header)) != self._header:
            file.seek(0)
            _write_all(file, memoryview(self._header))
        # Nothing is written after the header yet, but a file system that cannot hold a
        # file of this size raises now.
        if os.fstat(file.fileno()).st_size != self.n_bytes():
            file.truncate(self.n_bytes())

    def _read_sums(self):
        """Read the checksums, one for each row."""
        file, n_bytes = self._file_of_sums, _SUM_SIZE * self.shape[0]
        there = os.fstat(file.fileno()).st_size
        if there != n_bytes:
            file.truncate(min(there, n_bytes))
            file.seek(0, os.SEEK_END)
            # Allocated now, so that later checksums need no space on a full disk.
            _write_all(file, memoryview(bytes(max(0, n_bytes - there))))
            os.fsync(file.fileno())
        file.seek(0)
        self._sums = np.fromfile(file, np.uint8).reshape(self.shape[0], _SUM_SIZE)

    def _find_valid_rows(self):
        """Find the rows that match their checksums; forget the other checksums."""
        noted = self._sums.any(axis=1)
        self.done = np.zeros(self.shape[0], dtype=bool)
        size = max(1, _BLOCK // max(1, self._row_bytes))
        for start in range(0, self.shape[0], size):
            rows = start + np.flatnonzero(noted[start : start + size])
            if len(rows):
                values = self.read(start, start + size)[rows - start]
                self.done[rows] = (self._sums[rows] == self._sums_of(rows, values)).all(
                    axis=1
                )
        self._sums[~self.done] = 0
        if n_damaged := int((noted & ~self.done).sum()):
            warn(
                f"{n_damaged} of the {int(noted.sum())} rows that an interrupted "
                f"call left in {os.fspath(self.folder)!r} are damaged (their "
                "checksums do not match). They are computed again.",
                CacheWarning,
            )

    def _sums_of(self, rows, values):
        """Return the checksums of rows, shape (len(rows), 8), as bytes."""
        sums = bytearray()
        for row, data in zip(rows.tolist(), values.view(np.uint8), strict=True):
            hasher = blake3(row.to_bytes(8, "little"), key=self._key)
            sums += hasher.update(data).digest(_SUM_SIZE)
        return np.frombuffer(sums, np.uint8).reshape(-1, _SUM_SIZE)

    def missing_bytes(self):
        """Return how many bytes of the rows are not yet allocated on the disk."""
        blocks = getattr(os.stat(self.rows_path), "st_blocks", None)
        return max(0, self.n_bytes() - 512 * blocks) if blocks is not None else 0

    def write(self, rows, values):
        """Write rows and mark them done.

        Parameters
        ----------
        rows : ndarray of int
        values : ndarray of float32, shape (len(rows), n_features)
        """
        values = np.ascontiguousarray(values, dtype="<f4")
        self.place(rows, values)
        if len(rows):
            self._sums[rows] = self._sums_of(rows, values)
            self.done[rows] = True
            first, last = self._filled or (rows[0], rows[0])
            self._filled = (min(first, rows.min()), max(last, rows.max()))
        if time.monotonic() - self._last_commit >= _COMMIT_INTERVAL:
            self.commit()

    def place(self, rows, values):
        """Write rows without marking them done."""
        values = np.ascontiguousarray(values, dtype="<f4")
        # One write for each run of consecutive indices.
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        with explain_full_disk(self.folder):
            for run, block in zip(
                np.split(rows, ends), np.split(values, ends), strict=True
            ):
                if len(run):
                    self._rows.seek(len(self._header) + int(run[0]) * self._row_bytes)
                    _write_all(self._rows, memoryview(block).cast("B"))

    def read(self, start, stop):
        """Return rows as an array of little-endian float32 in memory."""
        shape = min(stop, self.shape[0]) - start, self.shape[1]
        self._rows.seek(len(self._header) + start * self._row_bytes)
        values = np.fromfile(self._rows, "<f4", math.prod(shape))
        if len(values) < math.prod(shape):
            raise OSError(f"{self.rows_path} was cut short while it was read.")
        return values.reshape(shape)

    def commit(self):
        """Make what was written survive a power failure."""
        if self._filled is None:
            return
        first, last = self._filled
        with explain_full_disk(self.folder):
            # Before the checksums, because the disk may reorder writes. After a power
            # failure, rows would count as damaged.
            os.fsync(self._rows.fileno())
            self._file_of_sums.seek(_SUM_SIZE * int(first))
            _write_all(
                self._file_of_sums, memoryview(self._sums[first : last + 1]).cast("B")
            )
            os.fsync(self._file_of_sums.fileno())
        self._filled, self._last_commit = None, time.monotonic()

    def __exit__(self, *error):
        with self._files:
            self.commit()

    @staticmethod
    def remove(folder):
        """Remove a folder and the lock in it, which the caller holds."""
        # First, so that the rest no longer counts as intermediate results of a job.
        _remove(folder / "job.json")
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if path.name != "lock":
                    _remove(path)
            # Last: without it, another process may start in the same folder, which
            # then stays.
            os.unlink(folder / "lock")
            folder.rmdir()


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _write_all(file, view):
    while len(view):
        view = view[file.write(view) :]


def _is_own(entry):
    """Return whether this class can have written an entry of the folder."""
    if not _OWN_NAMES.fullmatch(entry.name):
        return False
    if entry.name.endswith(".zarr"):
        return entry.is_dir(follow_symlinks=False)
    # Writing to a file with a second name would change that other file.
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1


def _as_bytes(value):
    return json.dumps(value, indent=1, sort_keys=True).encode("utf-8")


def read_json(path, max_bytes=-1):
    """Return what a plain file holds as JSON, or None if it cannot be read."""
    try:
        with open_plain(path) as file:
            return json.loads(file.read(max_bytes))
    except (OSError, ValueError, RecursionError):
        return None


def with_checksum(record):
    """Return a record of JSON types with a checksum, by which damage is noticed."""
    return {**record, "checksum": digest_description(record)}


def is_intact(record, *names):
    """Return whether a record's values of these names match its checksum."""
    if not isinstance(record, dict) or not isinstance(record.get("job"), dict):
        return False
    values = {name: record.get(name) for name in names}
    return record.get("checksum") == digest_description(values)


def _npy_header(shape):
    """Return the first bytes of a .npy file of float32 rows."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()
