"""Caches as users name them, and which one a `cache` parameter means."""

import copy
import os
import time
from collections.abc import MutableMapping

from .._utils._parameter_errors import is_int
from .._utils._printable import redacted
from .._utils._shown import shown
from ._directory import check_path, find_directory
from ._mapping_access import Entries
from ._mapping_store import MappingStore
from ._size import parse_size
from ._sqlite_store import SQLiteStore
from ._store import Store


class RowCache:
    """What all caches can do. Subclasses have a method ``open``."""

    def _parameters(self):
        """Return what distinguishes it from other caches of its class."""
        return ()

    def __eq__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return self._parameters() == other._parameters()

    def __hash__(self):
        return hash((type(self), self._parameters()))

    def __repr__(self):
        return f"{type(self).__name__}()"

    def info(self):
        """Return what is in the cache.

        Returns
        -------
        CacheInfo
            Path, size, number of rows, and for each neck its number of rows, their
            length, their size and when they were last used. In a `MappingCache` sizes
            are estimated from one row of each neck.
        """
        with self.open() as store:
            return store.info()

    def clear(self, namespace=None):
        """Remove rows and give their space back.

        Parameters
        ----------
        namespace : str, default=None
            Label or key of a namespace as in `info`, or a pattern for labels as in a
            shell (``"resnet50*"``). None removes all rows, the digests of files, and
            converted networks.
            Entries of a mapping that belong to other programs are never removed.

        Returns
        -------
        int
            The number of rows removed.
        """
        if namespace is not None and not isinstance(namespace, str):
            raise TypeError(
                f"The 'namespace' parameter of {type(self).__name__}.clear must be a "
                f"str or None. Got {shown(namespace)} instead."
            )
        with self.open() as store:
            return store.clear(namespace)

    def check(self, repair=True):
        """Verify the checksum of every row, and the structure of the file.

        The whole cache is read.

        Parameters
        ----------
        repair : bool, default=True
            Remove damaged rows, and rename a file whose structure is damaged.

        Returns
        -------
        CheckReport
            Its `ok` is True if nothing is damaged.
        """
        with self.open() as store:
            return store.check(repair)


class NoCache(RowCache):
    """The cache of ``cache=None``, which stores nothing."""

    def open(self):
        """Return a `Store` that stores nothing."""
        return Store()


class FeatureCache(RowCache):
    """A cache on disk, so that the features of an image are computed only once.

    One SQLite file holds a row of features for each pair of an image's content and a
    neck. Several threads and processes can use it at the same time. If several of them
    need the same new rows, one computes them and the others read them. Rows have
    checksums. A damaged row is computed again and never returned. When the file reaches
    its limit, the rows used least recently are removed.

    If the disk is full, the directory is read-only, or the file is locked or damaged,
    there is a `CacheWarning` and features are computed instead. The result is the
    same. A damaged file is renamed to ``*.damaged-<time>``, and a new one is created.

    Parameters
    ----------
    path : str or path-like, default=None
        Directory of the cache, created at first use. None means the environment
        variable ``SKDEEPFEAT_CACHE_DIR`` or, if that is not set, the user's cache
        directory, looked up at each use. Only the user can read this default directory.
        The permissions of other directories follow the umask. The directory should be
        on a local disk: SQLite's write-ahead log needs memory that all processes share,
        which network file systems (NFS, SMB) do not provide.
    max_size : int, str or None, default="10 GB"
        Maximum size on disk in bytes, or a str with a decimal (MB) or binary (MiB)
        unit. Converted networks take at most a tenth of it, and at most 1 GiB. None
        means no limit. If a single job needs more, only some of its rows are stored,
        with a warning.

    Raises
    ------
    TypeError, ValueError
        If a parameter is invalid. Nothing is read or written before first use.

    See Also
    --------
    MappingCache : A cache in a mapping, such as a bucket that a cluster shares.

    Notes
    -----
    A `FeatureCache` holds only its two parameters, so it can be pickled, copied and
    compared. When a process is killed, it loses the batch that it is computing and the
    rows of about one second. Reading a row counts as use at most once in ten minutes.

    Anyone who can write to the directory can plant rows in it, so do not share it with
    users you do not trust. Nothing in it is ever executed or unpickled. Networks that
    were converted for OpenVINO are stored in a folder that only the user can read, and
    only if the cache directory belongs to the user and nobody else may write to it.
    They are used only if this user wrote them: each has a digest made with a secret in
    the user's state directory.

    Examples
    --------
    >>> from skdeepfeat.cache import FeatureCache
    >>> cache = FeatureCache("/tmp/features", max_size="2 GB")
    >>> cache
    FeatureCache('/tmp/features', max_size='2 GB')
    """

    # Not for users: tests replace the seconds to wait for another program's lock on
    # the file, and the clock.
    _timeout = 30.0
    _clock = staticmethod(time.time)

    def __init__(self, path=None, max_size="10 GB"):
        if path is not None:
            if not isinstance(path, (str, os.PathLike)):
                raise TypeError(
                    "The 'path' parameter of FeatureCache must be the path of a "
                    f"directory or None for the default one. Got {shown(path)} instead."
                )
            check_path(path, "The 'path' parameter of FeatureCache")
        parse_size(max_size)
        self.path = path
        self.max_size = max_size

    @property
    def directory(self):
        """The absolute path of the directory that would be used now."""
        return find_directory(self.path).path

    def open(self, quiet=False):
        """Return a `Store` for the duration of one call, to be used in a ``with``.

        Parameters
        ----------
        quiet : bool, default=False
            Whether to give no warning about a damaged file.

        Returns
        -------
        store : Store
            An object that reads and writes rows.
        """
        return SQLiteStore(
            find_directory(self.path),
            parse_size(self.max_size),
            timeout=self._timeout,
            clock=self._clock,
            quiet=quiet,
        )

    def _parameters(self):
        path = None if self.path is None else os.fspath(self.path)
        return path, parse_size(self.max_size)

    def __repr__(self):
        shown = [] if self.path is None else [repr(os.fspath(self.path))]
        if self.max_size != "10 GB":
            shown.append(f"max_size={self.max_size!r}")
        return f"FeatureCache({', '.join(shown)})"


class MappingCache(RowCache):
    """A cache in a mapping of names to bytes, such as a bucket that a cluster shares.

    If the parameter `cache` of an estimator is a mapping, such as
    ``fsspec.get_mapper("s3://bucket/rows")``, a dict or a `shelve`, the estimator wraps
    it in a `MappingCache`. Several machines can use the mapping at the same time. There
    are no locks between them: if two machines lack the same row at the same time, both
    compute it, with the same result. The workers of one search on one machine compute
    one after the other.

    Rows have checksums. A damaged row is computed again and never returned. If the
    mapping raises (no connection, no permission, read-only), there is a `CacheWarning`
    and features are computed instead. The result is the same.

    Parameters
    ----------
    mapping : MutableMapping of str to bytes
        Its other entries are left alone. Nothing is ever evicted.
    n_threads : int, default=1
        Number of threads that may use the mapping at once. Values above 1 are faster if
        each access takes long. They are safe only if the mapping is thread-safe.
        fsspec's mappings of remote places fetch many entries at once in any case.

    Raises
    ------
    TypeError, ValueError
        If a parameter is invalid.

    See Also
    --------
    FeatureCache : A cache on a local disk, which is much faster.

    Notes
    -----
    Copies and clones share the mapping. A pickle contains the pickle of the mapping.
    A pickled fsspec mapping refers to the same place, and contains the options of the
    file system, including passwords. A pickled dict is a copy, so rows that another
    process adds to its copy are lost.

    The digests of files, and locks, are in the default `FeatureCache` of each machine,
    because paths and inodes belong to one machine.

    Anyone who can write to the mapping can plant rows in it. Nothing in it is ever
    executed or unpickled.

    Examples
    --------
    >>> from skdeepfeat.cache import MappingCache
    >>> MappingCache({})
    MappingCache(<dict>)
    """

    def __init__(self, mapping, n_threads=1):
        if not isinstance(mapping, MutableMapping):
            raise TypeError(
                "The 'mapping' parameter of MappingCache must be a MutableMapping of "
                "str to bytes, such as fsspec.get_mapper('s3://bucket/rows') or a "
                f"dict. Got an object of type {type(mapping).__name__} instead."
            )
        if not is_int(n_threads) or n_threads < 1:
            raise ValueError(
                "The 'n_threads' parameter of MappingCache must be an int of at least "
                f"1. Got {shown(n_threads)} instead."
            )
        self.mapping = mapping
        self.n_threads = n_threads

    def open(self):
        """Return a `Store` for the duration of one call, to be used in a ``with``.

        Returns
        -------
        store : Store
            An object that reads and writes rows.
        """
        entries = Entries(self.mapping, self.n_threads)
        return MappingStore(repr(self), entries, FeatureCache().open(quiet=True))

    def __deepcopy__(self, memo):
        # scikit-learn's clone makes deep copies of parameters. A clone with its own
        # copy of the cache would compute all rows again.
        return copy.copy(self)

    def _parameters(self):
        # Comparing contents would read a whole bucket.
        return id(self.mapping), self.n_threads

    def __repr__(self):
        root = getattr(self.mapping, "root", None)
        place = f" at {redacted(root)!r}" if isinstance(root, str) else ""
        threads = f", n_threads={self.n_threads}" if self.n_threads != 1 else ""
        return f"MappingCache(<{type(self.mapping).__name__}{place}>{threads})"


# What a `cache` parameter may be, for scikit-learn's validation.
CACHE_CONSTRAINT = [str, os.PathLike, FeatureCache, MappingCache, MutableMapping, None]


def open_cache(value):
    """Return the cache of a `cache` parameter.

    Parameters
    ----------
    value : None, "default", str, path-like, FeatureCache, MappingCache or mapping
        None stores nothing, ``"default"`` is ``FeatureCache()``, a path is the
        directory of a `FeatureCache`, and a mapping becomes a `MappingCache`. For a
        directory named "default", write "./default".

    Returns
    -------
    FeatureCache, MappingCache or NoCache

    Raises
    ------
    TypeError
        If it is none of these.
    ValueError
        If it is an empty path, or an address instead of a path.
    """
    if value is None:
        return NoCache()
    if isinstance(value, RowCache):
        return value
    if isinstance(value, str) and value == "default":
        return FeatureCache()
    if isinstance(value, (str, os.PathLike)):
        check_path(value, "The 'cache' parameter")
        return FeatureCache(value)
    if isinstance(value, MutableMapping):
        return MappingCache(value)
    raise TypeError(
        "The 'cache' parameter must be 'default', the path of a directory, a "
        "FeatureCache, a mapping such as fsspec.get_mapper('s3://bucket/rows'), or "
        f"None to work without a cache. Got {shown(value)} instead."
    )
