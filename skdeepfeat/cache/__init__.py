"""Which rows are known, who computes the rest, what is evicted.

The cache is given digests and a function that computes rows. It knows nothing of images
and networks.
"""

from ._caches import CACHE_CONSTRAINT, FeatureCache, MappingCache, NoCache, open_cache
from ._namespace import Namespace
from ._reports import CacheInfo, CheckReport, NamespaceInfo
from ._store import Store

__all__ = [
    "CACHE_CONSTRAINT",
    "CacheInfo",
    "CheckReport",
    "FeatureCache",
    "MappingCache",
    "Namespace",
    "NamespaceInfo",
    "NoCache",
    "Store",
    "open_cache",
]
