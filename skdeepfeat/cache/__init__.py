"""Which rows are known, who computes the rest, what is evicted.

The cache is handed digests and a function that computes rows; of images and
networks it knows nothing.
"""

from ._audit import CacheInfo, CheckReport, NamespaceInfo
from ._feature_cache import FeatureCache, NoCache
from ._mapping_cache import MappingCache
from ._memo import FileMemo
from ._namespace import Namespace
from ._open import open_cache
from ._variants import warn_of_unstable

__all__ = [
    "CacheInfo",
    "CheckReport",
    "FeatureCache",
    "FileMemo",
    "MappingCache",
    "Namespace",
    "NamespaceInfo",
    "NoCache",
    "open_cache",
    "warn_of_unstable",
]
