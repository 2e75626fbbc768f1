"""The cache that users name, and what the estimators ask of it."""

import contextlib
import os
import time

from . import _audit, _variants
from ._disk_limits import Limits
from ._faults import Faults
from ._fetch import fetch_rows
from ._memo import FileMemo
from ._null_store import NullStore
from ._place import find_place, refuse_no_directory
from ._size import parse_size
from ._store import Store

__all__ = ["FeatureCache", "NoCache"]


class _RowCache:
    """What every cache does, with whatever store it does it."""

    # False where nothing is kept, so that no identity has to be found out.
    keeps_rows = True

    def fetch(self, namespaces, keys, compute, n_features, *, also=None, place=""):
        """Return the rows of images, computing those that are not known.

        A row that is missing in one of the namespaces is computed for all of them.
        While one thread or process computes rows of a namespace, others that lack
        any of them, or of another namespace of the same network, wait, then read.
        Rows are stored as they come, about once a second: an interrupted job resumes
        where it stopped.

        Parameters
        ----------
        namespaces : sequence of Namespace
            What to compute of each image.
        keys : sequence of bytes or None
            For each row the digest of its image, 32 bytes. None is an image known
            to be bad. Rows with the same digest are computed once.
        compute : callable
            ``compute(indices)``, `indices` being an int array of positions in
            `keys`, returns an iterator of ``(indices, blocks)``: some of these
            positions and, for each of `namespaces` and then of ``also()``, an array of
            shape (len(indices), n_features), of finite values. Positions that it leaves
            out have failed. Called once, and only if something is missing; closed in
            any case.
        n_features : callable
            Returns the lengths of the namespaces' rows. Called only when neither
            stored nor computed rows tell.
        also : callable, default=None
            Returns namespaces of the same network, whose rows `compute` computes
            besides, to be found later. They are not read or returned, and are in memory
            only until they are stored; that they are missing is no reason to compute
            anything. Rows that are not finite are not stored. Called before `compute`,
            and not at all where nothing is kept.
        place : str, default=""
            Where `compute` works, such as a device. The threads of one process and
            the workers of one pool compute in turn in one place.

        Returns
        -------
        list of ndarray of float32, shape (len(keys), n_features)
            One for each namespace. Rows that failed, which `compute` knows, are filled
            with NaN.

        Raises
        ------
        ValueError
            If `compute` yields rows of another shape, or values that are not finite.
        Exception
            What `compute` raises, unchanged; what it yielded before is stored.

        Warns
        -----
        CacheWarning
            If the store could not be used as asked. The result is right all the same.
        """
        with self._open_store() as store:
            return fetch_rows(store, namespaces, keys, compute, n_features, also, place)

    def recognize(self, namespaces, probe_rows, agree):
        """Return the variants of namespaces that give these rows for fixed inputs.

        It is for networks that no description identifies. Whoever gets the variant of
        an earlier call may use its rows; what no earlier call has seen is a new one.

        Parameters
        ----------
        namespaces : sequence of Namespace
        probe_rows : sequence of ndarray of float32, shape (n_inputs, n_features)
            For each namespace, the rows of inputs that are the same at each call.
        agree : callable
            ``agree(rows, known rows) -> bool``, whether they come from one network.

        Returns
        -------
        list of Namespace
        """
        # What is wrong with the store is said by the fetch that follows.
        with self._open_store(quiet=True) as store:
            return [
                _variants.recognize(store, namespace, rows, agree)
                for namespace, rows in zip(namespaces, probe_rows, strict=True)
            ]

    @contextlib.contextmanager
    def opened(self):
        """Lend a cache that opens its store once for the body of a ``with``.

        Yields
        ------
        cache
            With the methods of this class.
        """
        with self._open_store() as store:
            yield _OpenedCache(store, self.keeps_rows)

    def file_memo(self):
        """Return what is remembered about files.

        Returns
        -------
        FileMemo
            Its ``lookup(stats)`` and ``remember(stats, digests)`` spare reading
            files that have not changed.
        """
        return FileMemo(lambda: self._open_store(quiet=True))


class _OpenedCache(_RowCache):
    """A cache with an open store."""

    def __init__(self, store, keeps_rows):
        self._store = store
        self.keeps_rows = keeps_rows

    def _open_store(self, quiet=False):
        return contextlib.nullcontext(self._store)


class NoCache(_RowCache):
    """The cache of ``cache=None``: computes each distinct row, keeps nothing."""

    keeps_rows = False

    def fetch(self, namespaces, keys, compute, n_features, *, also=None, place=""):
        """Return the rows of images; see `FeatureCache.fetch`."""
        return super().fetch(namespaces, keys, compute, n_features, place=place)

    def _open_store(self, quiet=False):
        return NullStore()

    def info(self):
        """Return an empty `CacheInfo`."""
        return _audit.CacheInfo(None)

    def clear(self, namespace=None):
        """Remove nothing, return 0."""
        return 0

    def check(self, repair=True):
        """Return an empty `CheckReport`."""
        return _audit.CheckReport(None)

    def __eq__(self, other):
        return isinstance(other, NoCache)

    def __hash__(self):
        return hash(NoCache)

    def __repr__(self):
        return "NoCache()"


class FeatureCache(_RowCache):
    """Rows of deep features on disk, each computed once.

    One SQLite file holds a row for each pair of image content and neck. Threads,
    processes and `n_jobs` may use it at the same moment: rows missing in several of
    them are computed by one and read by the others. Rows carry checksums, so a
    damaged one is computed again and never returned. When the file reaches its
    limit, the rows used least recently make room.

    A full disk, a read-only directory, a locked or damaged file cost a
    `CacheWarning` and the benefit of the cache, never the result; a damaged file is
    renamed to ``*.damaged-<time>``, and a new one begun.

    Parameters
    ----------
    path : str or path-like, default=None
        A directory, made at first use. None is the environment variable
        ``SKDEEPFEAT_CACHE_DIR`` or else the platform's user cache directory, looked
        up at each use. The platform's directory is readable for the user only; others
        follow the umask. It should be on a local disk: SQLite's write-ahead log
        needs memory shared by all who use the file, which network file systems (NFS,
        SMB) do not give to several machines.
    max_size : int, str or None, default="10 GB"
        Bytes that the cache may take on disk: a number, or a text with a decimal (MB)
        or binary (MiB) unit. None sets no limit. A single job larger than
        that keeps a part of its rows and warns.

    Raises
    ------
    TypeError, ValueError
        If a parameter makes no sense. Nothing is read or written before first use.

    Notes
    -----
    A cache object holds its two parameters and nothing else: it can be pickled,
    copied and compared freely. Up to a second's worth of computed rows, and the batch
    being computed, are lost when a process is killed. Being read counts as
    use at most once in ten minutes.

    Whoever can write to the directory can plant rows in it: do not share it with
    users you do not trust. Nothing in it is ever executed or unpickled.

    Examples
    --------
    >>> from skdeepfeat.cache import FeatureCache
    >>> cache = FeatureCache("/tmp/features", max_size="2 GB")
    >>> cache
    FeatureCache('/tmp/features', max_size='2 GB')
    """

    # Seconds to wait for another program's lock on the file, and the clock: not for
    # users, but tests cannot wait.
    _timeout = 30.0
    _clock = staticmethod(time.time)

    def __init__(self, path=None, max_size="10 GB"):
        if path is not None and not isinstance(path, (str, os.PathLike)):
            raise TypeError(
                "The 'path' parameter of FeatureCache must be the path of a directory "
                f"or None for the default one. Got {path!r} instead."
            )
        if path is not None:
            refuse_no_directory(path, "The 'path' parameter of FeatureCache")
        parse_size(max_size)
        self.path = path
        self.max_size = max_size

    @property
    def directory(self):
        """The directory that is used, as things stand now, absolute."""
        return self.place().directory

    def place(self):
        """Return the `Place` that is used, as things are now."""
        return find_place(self.path)

    def _open_store(self, quiet=False):
        return Store(
            self.place(),
            Limits(parse_size(self.max_size)),
            timeout=self._timeout,
            clock=self._clock,
            faults=Faults(quiet),
        )

    def info(self):
        """Return what is in the cache.

        Returns
        -------
        CacheInfo
            Path, size, number of rows, and for each neck its rows, their length,
            size and last use.
        """
        with self._open_store() as store:
            return _audit.describe(store)

    def clear(self, namespace=None):
        """Remove rows and give their space back to the disk.

        Parameters
        ----------
        namespace : str, default=None
            Label or key of a namespace as in `info`, or a pattern for labels as in a
            shell (``"resnet50*"``). None removes everything, the remembered
            files too.

        Returns
        -------
        int
            The number of rows removed.
        """
        if namespace is not None and not isinstance(namespace, str):
            raise TypeError(
                "The 'namespace' parameter of FeatureCache.clear must be a str or "
                f"None. Got {namespace!r} instead."
            )
        with self._open_store() as store:
            return _audit.clear(store, namespace)

    def check(self, repair=True):
        """Examine the whole file: its structure, and every row's checksum.

        Reads all of it, so it takes as long as that takes.

        Parameters
        ----------
        repair : bool, default=True
            Remove damaged rows; set a file aside whose structure is damaged.

        Returns
        -------
        CheckReport
            Its `ok` says whether everything was sound.
        """
        with self._open_store() as store:
            return _audit.examine(store, repair)

    def _parameters(self):
        path = None if self.path is None else os.fspath(self.path)
        return path, parse_size(self.max_size)

    def __eq__(self, other):
        if not isinstance(other, FeatureCache):
            return NotImplemented
        return self._parameters() == other._parameters()

    def __hash__(self):
        return hash(self._parameters())

    def __repr__(self):
        shown = [] if self.path is None else [repr(os.fspath(self.path))]
        if self.max_size != "10 GB":
            shown.append(f"max_size={self.max_size!r}")
        return f"FeatureCache({', '.join(shown)})"
