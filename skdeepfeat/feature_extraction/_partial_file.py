"""Rows of features on disk while they are being computed, and after a kill."""

import contextlib
import errno
import io
import json
import logging
import os
import pathlib
import re
import shutil
import stat
import time
import warnings

import numpy as np
from blake3 import blake3
from filelock import FileLock, Timeout

from .._utils._atomic_file import write_atomically
from .._utils._digests import digest_description
from .._utils._plain_file import open_plain
from .._utils._stacklevel import caller_stacklevel
from ..exceptions import CacheWarning

__all__ = ["Partial", "explain_full_disk", "hold"]

logger = logging.getLogger(__name__)

# Seconds of work that a power failure may cost; a killed process loses the batch in
# the making and no more than this of what it had not yet noted.
_COMMIT_INTERVAL = 1.0
_POLL = 0.1  # seconds between two looks at a lock that somebody else holds
# What may lie in the folder, with the temporary names of `write_atomically` and those
# that NFS gives to a file which is removed while it is open.
_OWN_NAMES = re.compile(
    r"lock|job\.json|sums|rows\.npy|assembled\.parquet|(assembled|replaced)\.zarr"
    r"|\.job\.json\.[0-9a-f]{16}|\.nfs[0-9a-f]+|\.filelock-probe-[0-9a-f]+"
)
_SUM_SIZE = 8  # bytes of a checksum; all zero where there is no row
_CONTEXT = "skdeepfeat 2026-11-26 rows of an interrupted job v1"
_BLOCK = 2**24  # bytes of rows that are compared with their checksums at a time
_MAX_JOB_BYTES = 2**20
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextlib.contextmanager
def hold(folder):
    """Keep a folder to oneself for the body of a ``with``, and make it if need be.

    The lock file lies in the folder and goes with it, so that nothing is left
    behind. Whoever waited for a lock that has gone meanwhile takes the next one.

    Parameters
    ----------
    folder : pathlib.Path

    Raises
    ------
    FileExistsError
        If the folder or the lock is a link, or somebody else's.
    """
    path = folder / "lock"
    while True:
        _make_folder(folder)
        with contextlib.ExitStack() as stack:
            try:
                _refuse_foreign(folder)
                # Open as long as the lock is taken, so that its inode is nobody else's.
                seen = stack.enter_context(open_plain(path, "ab"))
                stack.enter_context(_acquired(path, os.fstat(seen.fileno()).st_mode))
                current = os.path.samestat(os.fstat(seen.fileno()), os.lstat(path))
            except FileNotFoundError:
                continue  # the one who had it removed the folder
            if not current:
                continue
            yield
            return


def _make_folder(folder):
    # Over a link that leads nowhere, too, which `_refuse_foreign` names.
    with contextlib.suppress(FileExistsError):
        folder.mkdir()


def _refuse_foreign(folder):
    """Raise for a link, and in a place where all may write for what others have made.

    Whoever owns the folder could exchange the files in it at any moment.
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


def _acquired(path, mode):
    # With the permissions it has: some versions of filelock would change them.
    lock = FileLock(path, mode=stat.S_IMODE(mode) | 0o600)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        logger.warning("%s: another process is writing it; waiting", path.parent)
        return lock.acquire(poll_interval=_POLL)


@contextlib.contextmanager
def explain_full_disk(folder):
    """Say in the error of a full disk that nothing is lost, and how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise OSError(
            error.errno,
            f"There is no room left to write {os.fspath(folder)!r} "
            f"({os.strerror(error.errno)}). What was computed is kept there: make "
            "room and call again to go on",
        ) from error


class Partial:
    """The rows of one job as they come, in a folder beside the file-to-be.

    ``rows.npy`` has a place for every row, ``sums`` a checksum for every row that has
    been filled in, and ``job.json`` says what is being computed. The checksums cover
    the job and the row's number, too. When a job is taken up again, every row is
    compared with its checksum, and only those that fit count as computed. So whatever
    a kill, a disk or somebody else has done to the folder costs work, and never gives a
    wrong row.

    Parameters
    ----------
    folder : pathlib.Path
        Held by nobody else (see `hold`).
    job : dict of JSON types
        What the rows are. Rows of an equal job are taken over, those of
        another are removed.
    shape : tuple of (int, int)
        Number of rows and of features.

    Attributes
    ----------
    done : ndarray of bool, shape (n_rows,)
        The rows that are there.

    Warns
    -----
    CacheWarning
        If rows do not fit their checksums.
    """

    def __init__(self, folder, job, shape):
        self.folder = folder
        self.rows_path = folder / "rows.npy"
        self.shape = shape
        self._header = _npy_header(shape)
        self._row_bytes = 4 * shape[1]
        self._key = blake3(_as_bytes(job), derive_key_context=_CONTEXT).digest()
        self._filled = None  # first and last row that were filled in since the commit
        self._last_commit = time.monotonic()
        with contextlib.ExitStack() as stack, explain_full_disk(folder):
            if not os.path.lexists(self.rows_path) or self.job_in(folder) not in (
                None,
                job,
            ):
                self._forget()
            self._rows = stack.enter_context(self._open_rows())
            self._file_of_sums = stack.enter_context(self._open_sums())
            if self.job_in(folder) is None:
                write_atomically(folder / "job.json", _as_bytes(_sealed(job)))
            self._take_over()
            stack.pop_all()

    @staticmethod
    def is_in_the_way(folder):
        """Return whether something is there that was not written here.

        It would be removed with the folder. A link is never ours.
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
        """Return the job whose rows a folder holds; None if there is no telling."""
        try:
            with open_plain(folder / "job.json") as file:
                record = json.loads(file.read(_MAX_JOB_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        job = record.get("job") if isinstance(record, dict) else None
        return job if isinstance(job, dict) and record == _sealed(job) else None

    def n_bytes(self):
        """Return the size of the rows on the disk."""
        return len(self._header) + self.shape[0] * self._row_bytes

    def _forget(self):
        for name in ("job.json", "sums", "rows.npy"):
            (self.folder / name).unlink(missing_ok=True)

    def _open_rows(self):
        """Open the rows, with the header and the size that they must have."""
        # Unbuffered: what a full disk did not take must not come up again at closing.
        file = open_plain(self.rows_path, "r+b", buffering=0, create=True)
        with _closed_on_error(file):
            if file.read(len(self._header)) != self._header:
                file.seek(0)
                _write_all(file, memoryview(self._header))
            # Nothing is written behind the header yet; but where files cannot be as
            # large as this one will be, that is said now.
            if os.fstat(file.fileno()).st_size != self.n_bytes():
                file.truncate(self.n_bytes())
        return file

    def _open_sums(self):
        """Open the checksums, one for each row; read them."""
        n_bytes = _SUM_SIZE * self.shape[0]
        path = self.folder / "sums"
        file = open_plain(path, "r+b", buffering=0, create=True)
        with _closed_on_error(file):
            there = os.fstat(file.fileno()).st_size
            if there != n_bytes:
                file.truncate(min(there, n_bytes))
                file.seek(0, os.SEEK_END)
                # Written out, so that noting rows needs no room on a full disk.
                _write_all(file, memoryview(bytes(max(0, n_bytes - there))))
                os.fsync(file.fileno())
            file.seek(0)
            sums = np.empty((self.shape[0], _SUM_SIZE), np.uint8)
            _read_all(file, memoryview(sums).cast("B") if sums.size else b"", path)
        self._sums = sums
        return file

    def _take_over(self):
        """Find the rows that fit their checksums; forget the checksums of others."""
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
            warnings.warn(
                CacheWarning(
                    f"{n_damaged} of the {int(noted.sum())} rows that an interrupted "
                    f"call left in {os.fspath(self.folder)!r} are damaged (their "
                    "checksums do not match). They are computed again."
                ),
                stacklevel=caller_stacklevel() + 1,
            )

    def _sums_of(self, rows, values):
        """Return the checksums of rows, shape (len(rows), 8), as bytes."""
        sums = bytearray()
        for row, data in zip(rows.tolist(), values.view(np.uint8), strict=True):
            hasher = blake3(row.to_bytes(8, "little"), key=self._key)
            sums += hasher.update(data).digest(_SUM_SIZE)
        return np.frombuffer(sums, np.uint8).reshape(-1, _SUM_SIZE)

    def missing_bytes(self):
        """Return how many bytes of the rows take no room on the disk yet."""
        blocks = getattr(os.stat(self.rows_path), "st_blocks", None)
        return max(0, self.n_bytes() - 512 * blocks) if blocks is not None else 0

    def write(self, rows, values):
        """Fill in rows, and note that they are there.

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
        """Fill in rows without noting it: they will be asked for again."""
        values = np.ascontiguousarray(values, dtype="<f4")
        # One write for each run of neighbors.
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        with explain_full_disk(self.folder):
            for run, block in zip(
                np.split(rows, ends), np.split(values, ends), strict=True
            ):
                if len(run):
                    self._rows.seek(len(self._header) + int(run[0]) * self._row_bytes)
                    _write_all(self._rows, memoryview(block).cast("B"))

    def read(self, start, stop):
        """Return rows as an array of little-endian float32, not mapped."""
        stop = min(stop, self.shape[0])
        values = np.empty((stop - start, self.shape[1]), dtype="<f4")
        self._rows.seek(len(self._header) + start * self._row_bytes)
        if values.size:
            _read_all(self._rows, memoryview(values).cast("B"), self.rows_path)
        return values

    def commit(self):
        """Make what is filled in last, whatever happens next."""
        if self._filled is None:
            return
        first, last = self._filled
        with explain_full_disk(self.folder):
            # Before the checksums, as the disk may reorder: after a power failure,
            # rows would be taken for damaged.
            os.fsync(self._rows.fileno())
            self._file_of_sums.seek(_SUM_SIZE * int(first))
            _write_all(
                self._file_of_sums, memoryview(self._sums[first : last + 1]).cast("B")
            )
            os.fsync(self._file_of_sums.fileno())
        self._filled, self._last_commit = None, time.monotonic()

    def close(self):
        """Let go of the files, which stay."""
        self._rows.close()
        self._file_of_sums.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            self.commit()
        finally:
            self.close()

    @staticmethod
    def remove(folder):
        """Remove a folder of rows and the lock in it, with the folder to oneself."""
        folder = pathlib.Path(folder)
        # First what would be taken for the beginnings of a job.
        _remove(folder / "job.json")
        with contextlib.suppress(OSError):
            for path in folder.iterdir():
                if path.name != "lock":
                    _remove(path)
            # Last: as soon as it is gone, the next one may begin in the same folder,
            # which then stays.
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


def _read_all(file, view, path):
    while len(view):
        n_read = file.readinto(view)
        if not n_read:
            raise OSError(f"{path} was cut short while it was read.")
        view = view[n_read:]


@contextlib.contextmanager
def _closed_on_error(file):
    try:
        yield
    except BaseException:
        file.close()
        raise


def _is_own(entry):
    """Return whether an entry of the folder can have been written here."""
    if not _OWN_NAMES.fullmatch(entry.name):
        return False
    if entry.name.endswith(".zarr"):
        return entry.is_dir(follow_symlinks=False)
    # With a second name it would be written through to somebody else's file.
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1


def _as_bytes(value):
    return json.dumps(value, indent=1, sort_keys=True).encode("utf-8")


def _sealed(job):
    """Return what ``job.json`` holds: damage to it is noticed."""
    return {"job": job, "checksum": digest_description(job)}


def _npy_header(shape):
    """Return the first bytes of a .npy file of float32 rows."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()
