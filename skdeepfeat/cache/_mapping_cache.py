"""MappingCache: rows in a mapping, such as a bucket that a cluster shares."""

from collections.abc import MutableMapping
from numbers import Integral

from .._utils._printable import redacted
from . import _mapping_audit
from ._feature_cache import FeatureCache, _RowCache
from ._mapping_access import Entries
from ._mapping_store import MappingFaults, MappingStore

__all__ = ["MappingCache"]


class MappingCache(_RowCache):
    """Rows of deep features in a mapping of names to bytes, each computed once.

    What ``cache=`` makes of a mapping: ``fsspec.get_mapper("s3://bucket/rows")``, a
    dict, a `shelve`. Several machines may use one at the same time. There are no
    locks between them: two that lack the same row at the same moment both compute it,
    with the same result. The workers of one search on one machine do take turns.

    Rows carry checksums, so a damaged one is computed again and never returned. A
    mapping that raises (no connection, no permission, read-only) costs a
    `CacheWarning` and the benefit of the cache, never the result.

    Parameters
    ----------
    mapping : MutableMapping of str to bytes
        Entries of others in it are left alone. Nothing is ever evicted: its place sets
        the limit.
    n_threads : int, default=1
        How many threads may use the mapping at once. Above 1 it is faster where each
        entry takes a while, and safe only for mappings that say so. fsspec's mappings
        of remote places fetch many entries at once in any case.

    Raises
    ------
    TypeError, ValueError
        If a parameter makes no sense.

    Notes
    -----
    Copies and clones share the mapping. A pickle holds what the mapping's own pickle
    holds: fsspec's lead to the same place, with the options they were made with, also
    passwords; those of a dict are copies, whose new rows are lost with a worker.

    Digests of files are remembered in the default `FeatureCache` of each machine, as
    paths and inodes are its own; locks are there as well.

    Whoever can write to the mapping can plant rows in it. Nothing in it is ever
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
        is_int = isinstance(n_threads, Integral) and not isinstance(n_threads, bool)
        if not is_int or n_threads < 1:
            raise ValueError(
                "The 'n_threads' parameter of MappingCache must be an int of at least "
                f"1. Got {n_threads!r} instead."
            )
        self.mapping = mapping
        self.n_threads = n_threads

    def _open_store(self, quiet=False):
        local = FeatureCache()
        return MappingStore(
            repr(self),
            Entries(self.mapping, self.n_threads),
            local.file_memo(),
            local.place(),
            MappingFaults(quiet, self.mapping),
        )

    def info(self):
        """Return what is in the cache, by the names of all its entries.

        Returns
        -------
        CacheInfo
            Sizes are taken from one row of each neck; `last_used` is not known.
        """
        with self._open_store() as store:
            return _mapping_audit.describe(store)

    def clear(self, namespace=None):
        """Remove rows; entries that are not this package's stay.

        Parameters
        ----------
        namespace : str, default=None
            Label or key of a namespace as in `info`, or a pattern for labels as in a
            shell (``"resnet50*"``). None removes all rows.

        Returns
        -------
        int
            The number of rows removed.
        """
        if namespace is not None and not isinstance(namespace, str):
            raise TypeError(
                "The 'namespace' parameter of MappingCache.clear must be a str or "
                f"None. Got {namespace!r} instead."
            )
        with self._open_store() as store:
            return _mapping_audit.clear(store, namespace)

    def check(self, repair=True):
        """Read every row and examine its checksum.

        Parameters
        ----------
        repair : bool, default=True
            Remove damaged rows.

        Returns
        -------
        CheckReport
            Its `ok` says whether everything was sound.
        """
        with self._open_store() as store:
            return _mapping_audit.examine(store, repair)

    def __copy__(self):
        return MappingCache(self.mapping, self.n_threads)

    def __deepcopy__(self, memo):
        # scikit-learn's clone copies parameters deeply, and a clone that computed
        # its own rows would have no cache.
        return self.__copy__()

    def __eq__(self, other):
        if not isinstance(other, MappingCache):
            return NotImplemented
        # Comparing contents would read a whole bucket.
        return self.mapping is other.mapping and self.n_threads == other.n_threads

    def __hash__(self):
        return hash((id(self.mapping), self.n_threads))

    def __repr__(self):
        root = getattr(self.mapping, "root", None)
        place = f" at {redacted(root)!r}" if isinstance(root, str) else ""
        threads = f", n_threads={self.n_threads}" if self.n_threads != 1 else ""
        return f"MappingCache(<{type(self.mapping).__name__}{place}>{threads})"
