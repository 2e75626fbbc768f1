"""MappingCache: rows in a mapping, such as a bucket that a cluster shares."""

from collections.abc import MutableMapping

from .._utils._parameter_errors import is_int
from .._utils._printable import redacted
from .._utils._shown import shown
from ._feature_cache import FeatureCache, RowCache
from ._mapping_access import Entries
from ._mapping_store import MappingStore


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

    def __copy__(self):
        return MappingCache(self.mapping, self.n_threads)

    def __deepcopy__(self, memo):
        # scikit-learn's clone makes deep copies of parameters. A clone with its own
        # copy of the cache would compute all rows again.
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
