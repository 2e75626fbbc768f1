"""Which rows are known, who computes the rest, what is evicted.

The cache is handed digests and a function that computes rows; of images and
networks it knows nothing.
"""

from ._audit import CacheInfo, CheckReport, NamespaceInfo
from ._cache import FeatureCache, NoCache, open_cache
from ._memo import FileMemo
from ._namespace import Namespace

__all__ = [
    "CacheInfo",
    "CheckReport",
    "FeatureCache",
    "FileMemo",
    "Namespace",
    "NamespaceInfo",
    "NoCache",
    "open_cache",
]
