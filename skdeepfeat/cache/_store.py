"""An open cache: the rules that all kinds of stores share."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np

from .._utils._digests import digest_arrays
from .._utils._filestat import FileStat
from ._errors import StoreWarnings
from ._fetch import Job, OutputBuffer
from ._namespace import Namespace
from ._reports import CacheInfo, CheckReport
from ._side_files import PrivateFiles, SideFiles
from ._size import Limits

# Rows that are in memory at once when their presence is checked.
_N_LOOKED_UP = 10_000


class Store(AbstractContextManager):
    """A cache that is open for the duration of one call, to be used in a ``with``.

    This class keeps nothing, which is what ``cache=None`` means. Subclasses override
    the second half of its methods. If something goes wrong in a store, it warns once
    and then answers as an empty store would. The result is correct in any case.

    Attributes
    ----------
    keeps_rows : bool
        False if no identity of a network has to be found out, as nothing is stored.
    limits : Limits
    path : str or None
        The name of the store in messages.
    converted : PrivateFiles or None
        Networks in the form of another runtime, on this machine; None if none are kept.
    notes : SideFiles or None
        Notes about packages and files of this machine; None if nothing is noted.
    """

    keeps_rows = False
    limits = Limits(None)
    path: str | None = None
    converted: PrivateFiles | None = None
    notes: SideFiles | None = None
    warnings: StoreWarnings

    def __exit__(self, *error):
        self.close()

    # -- For callers

    def fetch(
        self,
        namespaces: Sequence[Namespace],
        keys: Sequence[bytes | None],
        compute: Callable,
        n_features: Callable,
        *,
        also: Callable | None = None,
        place: str = "",
        n_rows: int | None = None,
        read_more: Callable[[], Sequence[bytes | None]] | None = None,
    ) -> list[np.ndarray]:
        """Return the rows of images, computing those that are not known.

        A row that is missing in one of the namespaces is computed for all of them.
        While one thread or process computes rows of a namespace, others wait if they
        lack any of these rows, or rows of another namespace of the same network. Then
        they read. Rows are stored as they come, about once a second, so an interrupted
        job resumes where it stopped.

        Parameters
        ----------
        namespaces : sequence of Namespace
            What to compute for each image.
        keys : sequence of bytes or None
            For each row the digest of its image, 32 bytes, or None for an image that
            is known to be bad. Rows with the same digest are computed once.
        compute : callable
            ``compute(indices)`` is given an int array of indices of rows. It
            returns an iterator of ``(indices, blocks)``: some of these positions and,
            for each of `namespaces` and then of ``also()``, an array of shape
            (len(indices), n_features) of finite values. Positions that it leaves out
            have failed. It is called only if something is missing, once for each part
            of the keys, and is always closed.
        n_features : callable
            Returns the lengths of the namespaces' rows. Called only if neither stored
            nor computed rows tell.
        also : callable, default=None
            Returns further namespaces of the same network. `compute` computes their
            rows as well, and they are stored for later calls, unless they are not
            finite. They are not returned, and nothing is computed only because they
            are missing. Called before `compute`, and only if rows are stored at all.
        place : str, default=""
            Where `compute` works, such as a device. The threads of one process and
            the workers of one pool compute one after the other in one place.
        n_rows : int or None, default=None
            The number of rows, if `keys` are only those of the first.
        read_more : callable, default=None
            Returns the keys of some of the rows that follow. Called until all are
            known, each time when the rows before are done.

        Returns
        -------
        list of ndarray of float32, shape (n_rows, n_features)
            One for each namespace. Rows that failed are filled with NaN.

        Raises
        ------
        ValueError
            If `compute` yields rows of another shape, or values that are not finite.
        Exception
            What `compute` raises, unchanged. What it yielded before is stored.

        Warns
        -----
        CacheWarning
            If the store cannot be used as requested. The result is correct.
        """
        n_rows = len(keys) if n_rows is None else n_rows
        also = also if self.keeps_rows else None
        job = Job(self, namespaces, n_rows, also, place)
        first: dict[bytes, int] = {}  # index of the first row with each key
        source: list[int] = []  # the row that each row is a copy of
        try:
            while True:
                n_known = len(first)
                source += [
                    index if key is None else first.setdefault(key, index)
                    for index, key in enumerate(keys, start=len(source))
                ]
                wanted = dict(itertools.islice(first.items(), n_known, None))
                job.run(wanted, compute)
                if read_more is None or len(source) == n_rows:
                    break
                keys = read_more()
            job.settle_widths(n_features)
            self.finish()
            copies = np.array(source, np.intp) if len(first) < n_rows else None
            return [buffer.finish(copies) for buffer in job.buffers]
        finally:
            self._forget_job()

    def missing(
        self, namespaces: Sequence[Namespace], keys: Sequence[bytes | None]
    ) -> set[bytes | None]:
        """Return those of the keys that `fetch` would compute, and None.

        Known rows are read, so that damaged ones count as missing. Nobody is waited
        for who computes some of them.
        """
        missing: set[bytes | None] = {None}
        given = list({key for key in keys if key is not None})
        try:
            for start in range(0, len(given), _N_LOOKED_UP):
                part = given[start : start + _N_LOOKED_UP]
                job = Job(self, namespaces, len(part))
                missing.update(job.read({key: i for i, key in enumerate(part)}))
            return missing
        finally:
            self._forget_job()

    def recognize(
        self,
        namespaces: Sequence[Namespace],
        probe_rows: Sequence[np.ndarray],
        agree: Callable[[np.ndarray, np.ndarray], bool],
    ) -> list[Namespace]:
        """Return the variants of namespaces that give these rows for fixed inputs.

        It is for networks that no description identifies, such as a user's own. A
        network whose probe rows agree with those of a known variant may use the rows
        of that variant. Otherwise it is a new variant.

        Parameters
        ----------
        namespaces : sequence of Namespace
        probe_rows : sequence of ndarray of float32, shape (n_inputs, n_features)
            For each namespace, the rows of inputs that are the same in each call.
        agree : callable
            ``agree(rows, known_rows) -> bool``, whether they come from one network.

        Returns
        -------
        list of Namespace
        """
        found = []
        for namespace, rows in zip(namespaces, probe_rows, strict=True):
            rows = np.ascontiguousarray(rows, "<f4")
            new, data = digest_arrays(rows), rows.tobytes()
            while True:
                known = self.known_variants(namespace)
                # The oldest comes first, so all who ask get the same answer.
                fitting = (
                    name
                    for name, stored in known
                    if len(stored) == len(data)
                    and agree(rows, np.frombuffer(stored, "<f4").reshape(rows.shape))
                )
                name = next(fitting, None)
                if name or self.add_variant(namespace, new, data, known):
                    break
            found.append(namespace.variant(name or new))
        return found

    # -- Implemented by each kind of store

    def read(
        self,
        namespaces: list[Namespace],
        wanted: Mapping[bytes, int],
        buffers: list[OutputBuffer],
    ) -> None:
        """Copy rows into the buffers that are known in all the namespaces.

        Parameters
        ----------
        namespaces : list of Namespace
        wanted : mapping of bytes to int
            For each key the index of its row in the buffers.
        buffers : list of OutputBuffer
            One for each namespace.
        """

    def all_known(self, namespaces: list[Namespace], keys: Iterable[bytes]) -> bool:
        """Return True if every key is known to have a row in every namespace."""
        return False

    def hold(self, namespaces: list[Namespace], place: str) -> AbstractContextManager:
        """Return a context in which no other process computes the same rows."""
        return contextlib.nullcontext()

    def write(self, batch: list[tuple[Namespace, list[bytes], list]]) -> None:
        """Store rows.

        Parameters
        ----------
        batch : list of (Namespace, list of bytes, list of buffers)
            Keys and their rows, which are little-endian float32.
        """

    def n_features(self, namespace: Namespace) -> int | None:
        """Return the length of the rows of a namespace, or None if it is not known."""

    def finish(self) -> None:
        """Note what a fetch has used, and bound the size of the store."""

    def lookup(self, stats: list[FileStat]) -> list[bytes | None]:
        """Return the digests of files, None for those that are new or have changed."""
        return [None] * len(stats)

    def remember(self, stats: list[FileStat], digests: list[bytes]) -> None:
        """Store digests of files.

        Parameters
        ----------
        stats : list of FileStat
            Taken before the files were read, and only of files for which `is_settled`
            holds: any later change of the file changes its times.
        digests : list of bytes
        """

    def info(self) -> CacheInfo:
        """Return what is in the store."""
        return CacheInfo(None)

    def clear(self, pattern: str | None) -> int:
        """Remove the rows of matching namespaces; return the number of rows."""
        return 0

    def check(self, repair: bool) -> CheckReport:
        """Examine every row."""
        return CheckReport(None)

    def close(self) -> None:
        """Close the store. It opens again if it is used again."""

    def known_variants(self, namespace: Namespace) -> list[tuple[str, bytes]]:
        """Return name and data of the variants of a namespace, oldest first."""
        return []

    def add_variant(
        self,
        namespace: Namespace,
        name: str,
        data: bytes,
        known: list[tuple[str, bytes]],
    ) -> bool:
        """Store a new variant of a namespace unless there are others meanwhile.

        Parameters
        ----------
        namespace : Namespace
        name : str
        data : bytes
            What recognizes it.
        known : list of (str, bytes)
            What `known_variants` returned.

        Returns
        -------
        bool
            False if there are other variants now. True also if it cannot be stored.
        """
        return True

    # -- Errors

    def _give_up(self, cause: object, writing: bool) -> None:
        """Do without writing, or without the store at all, for the rest of the job."""
        self._unwritable = True
        self._unreadable |= not writing
        self.warnings.unusable(cause)

    def _forget_job(self) -> None:
        """Start afresh after a fetch: what went wrong is tried again in the next."""
        self._unreadable = self._unwritable = False
