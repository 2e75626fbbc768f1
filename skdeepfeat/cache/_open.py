"""The cache of a `cache` parameter."""

import os
from collections.abc import MutableMapping

from .._utils._shown import shown
from ._directory import check_path
from ._feature_cache import FeatureCache, NoCache, RowCache
from ._mapping_cache import MappingCache

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
