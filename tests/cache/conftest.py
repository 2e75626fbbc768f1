"""Caches in new directories."""

import pytest

from skdeepfeat.cache import FeatureCache


@pytest.fixture
def directory(tmp_path):
    """Return where a cache may be made."""
    return tmp_path / "cache"


@pytest.fixture
def cache(directory):
    return FeatureCache(directory)


@pytest.fixture
def impatient(monkeypatch):
    """Do not wait half a minute for locks that nobody will give back."""
    monkeypatch.setattr(FeatureCache, "_timeout", 0.2)
