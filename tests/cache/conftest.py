"""Caches in directories that every user may read."""

import pytest

from skdeepfeat.cache import FeatureCache


@pytest.fixture
def directory(open_directory):
    """Return where a cache may be made; some tests look at it as another user."""
    return open_directory / "cache"


@pytest.fixture
def cache(directory):
    return FeatureCache(directory)


@pytest.fixture
def impatient(monkeypatch):
    """Do not wait half a minute for locks that nobody will give back."""
    monkeypatch.setattr(FeatureCache, "_timeout", 0.2)
