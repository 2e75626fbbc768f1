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
import time

import numpy as np
from filelock import FileLock, Timeout

from .._atomic_file import write_atomically

__all__ = ["Partial", "explain_full_disk", "hold"]

logger = logging.getLogger(__name__)

# Seconds of work that a power failure may cost; a killed process loses the batch in
# the making and no more than this of what it had not yet ticked off.
_COMMIT_INTERVAL = 1.0
_POLL = 0.1  # seconds between two looks at a lock that somebody else holds
# What may lie in the folder, with the temporary names of `write_atomically` and those
# that NFS gives to a file which is removed while it is open.
_OWN_NAMES = re.compile(
    r"lock|job\.json|done|rows\.npy|assembled\.parquet|(assembled|replaced)\.zarr"
    r"|\.(job\.json|done)\.[0-9a-f]{16}|\.nfs[0-9a-f]+"
)
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextlib.contextmanager
def hold(folder):
    """Keep a folder to oneself for the body of a ``with``, and make it if need be.

    The lock file lies in the folder and goes with it, so that nothing is left
    behind. Whoever waited for a lock that has gone meanwhile takes the next one.

    Parameters
    ----------
    folder : pathlib.Path
    """
    path = folder / "lock"
    while True:
        folder.mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                # Open as long as the lock is taken, so that its inode is nobody else's.
                seen = stack.enter_context(open(path, "ab"))
                stack.enter_context(_acquired(path))
                current = os.path.samestat(os.fstat(seen.fileno()), os.stat(path))
            except FileNotFoundError:
                continue  # the one who had it removed the folder
            if not current:
                continue
            yield
            return


def _acquired(path):
    lock = FileLock(path)
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

    ``rows.npy`` has a place for every row, ``done`` a byte for every row that says
    whether it has been filled in, and ``job.json`` says what is being computed.
    Rows are written before they are ticked off, so what is ticked off is whole.

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
    """

    def __init__(self, folder, job, shape):
        self.folder = folder
        self.rows_path = folder / "rows.npy"
        self._done_path = folder / "done"
        self.shape = shape
        self._header = _npy_header(shape)
        self._row_bytes = 4 * shape[1]
        self._ticked = None  # first and last row that were filled in since the commit
        self._last_commit = time.monotonic()
        with explain_full_disk(folder):
            if self.job_in(folder) != job or not self._is_whole():
                self._begin(job)
        # Unbuffered: what a full disk did not take must not come up again at closing.
        self._rows = open(self.rows_path, "r+b", buffering=0)
        self._flags = open(self._done_path, "r+b", buffering=0)
        self.done = np.frombuffer(bytearray(self._flags.read()), dtype=bool)

    @staticmethod
    def is_in_the_way(folder):
        """Return whether something is there that was not written here.

        It would be removed with the folder.
        """
        try:
            return not all(map(_OWN_NAMES.fullmatch, os.listdir(folder)))
        except FileNotFoundError:
            return os.path.islink(folder)
        except NotADirectoryError:
            return True

    @staticmethod
    def job_in(folder):
        """Return the job whose rows a folder holds, or None."""
        try:
            job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return job if isinstance(job, dict) else None

    def _is_whole(self):
        try:
            sizes = [os.path.getsize(p) for p in (self.rows_path, self._done_path)]
            with open(self.rows_path, "rb") as file:
                header = file.read(len(self._header))
        except OSError:
            return False
        return sizes == [self.n_bytes(), self.shape[0]] and header == self._header

    def n_bytes(self):
        """Return the size of the rows on the disk."""
        return len(self._header) + self.shape[0] * self._row_bytes

    def _begin(self, job):
        for path in (self.folder / "job.json", self._done_path, self.rows_path):
            path.unlink(missing_ok=True)
        with open(self.rows_path, "xb") as file:
            file.write(self._header)
            # Nothing is written behind the header yet; but where files cannot be
            # as large as this one will be, that is said now.
            file.truncate(self.n_bytes())
        # Written out, so that ticking off needs no room on a full disk.
        write_atomically(self._done_path, bytes(self.shape[0]))
        write_atomically(
            self.folder / "job.json", json.dumps(job, indent=1).encode("utf-8")
        )

    def missing_bytes(self):
        """Return how many bytes of the rows take no room on the disk yet."""
        blocks = getattr(os.stat(self.rows_path), "st_blocks", None)
        return max(0, self.n_bytes() - 512 * blocks) if blocks is not None else 0

    def write(self, rows, values):
        """Fill in rows and tick them off, except those in which NaN stand for them.

        Parameters
        ----------
        rows : ndarray of int
        values : ndarray of float32, shape (len(rows), n_features)
        """
        self.place(rows, values)
        self.done[rows] = True
        if len(rows):
            first, last = self._ticked or (rows[0], rows[0])
            self._ticked = (min(first, rows.min()), max(last, rows.max()))
        if time.monotonic() - self._last_commit >= _COMMIT_INTERVAL:
            self.commit()

    def place(self, rows, values):
        """Fill in rows without ticking them off: they will be asked for again."""
        values = np.ascontiguousarray(values, dtype="<f4")
        # One write for each run of neighbours.
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
        view, filled = memoryview(values).cast("B"), 0
        while filled < len(view):
            n_read = self._rows.readinto(view[filled:])
            if not n_read:
                raise OSError(f"{self.rows_path} was cut short while it was read.")
            filled += n_read
        return values

    def commit(self):
        """Make what is ticked off last, whatever happens next."""
        if self._ticked is None:
            return
        first, last = self._ticked
        with explain_full_disk(self.folder):
            os.fsync(self._rows.fileno())  # before the ticks: the disk may reorder
            self._flags.seek(int(first))
            _write_all(self._flags, memoryview(self.done[first : last + 1]).cast("B"))
            os.fsync(self._flags.fileno())
        self._ticked, self._last_commit = None, time.monotonic()

    def close(self):
        """Let go of the files, which stay."""
        self._rows.close()
        self._flags.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        try:
            self.commit()
        finally:
            self.close()

    @staticmethod
    def remove(folder):
        """Remove a folder of rows, the lock in it included."""
        # First what would be taken for the beginnings of a job.
        pathlib.Path(folder, "job.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _write_all(file, view):
    while len(view):
        view = view[file.write(view) :]


def _npy_header(shape):
    """Return the first bytes of a .npy file of float32 rows."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()
