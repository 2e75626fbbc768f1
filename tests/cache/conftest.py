"""Caches in new directories."""

import sqlite3

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


@pytest.fixture
def statements(monkeypatch):
    """Return a list that every SQL statement is appended to."""
    found, connect = [], sqlite3.connect

    def traced(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.set_trace_callback(found.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return found
