"""What one description has been found to compute, told apart by probe rows."""

import threading

import numpy as np
import pytest

from skdeepfeat.cache import (
    FeatureCache,
    MappingCache,
    Namespace,
    NoCache,
    _mapping_layout,
    _variants,
)
from skdeepfeat.cache._sqlite_store import SQLiteStore
from skdeepfeat.exceptions import CacheWarning
from tests.cache.pretend import fetch

PLACE = Namespace({"net": "own"}, "own, neck, float32")
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3) + 1


def agree(found, known):
    return np.allclose(found, known, rtol=1e-4)


def recognize(cache, rows=ROWS, namespace=PLACE):
    with cache.open() as store:
        [found] = store.recognize([namespace], [rows], agree)
    return found


def keep_row(cache, namespace):
    """Store a row of the variant, and return how many had to be computed."""
    computed = []

    def compute(indices):
        computed.extend(indices)
        yield indices, [np.ones((len(indices), 3), np.float32)]

    fetch(cache, [namespace], [b"k" * 32], compute, lambda: [3])
    return len(computed)


@pytest.fixture(params=["file", "mapping"])
def cache(request, tmp_path):
    return FeatureCache(tmp_path) if request.param == "file" else MappingCache({})


def test_rows_that_agree_are_one_variant(cache):
    first = recognize(cache)
    assert first != PLACE
    assert first.label == PLACE.label
    assert first.work == PLACE.work
    assert recognize(cache, ROWS * np.float32(1 + 1e-6)) == first
    other = recognize(cache, ROWS * np.float32(1.001))
    assert other != first
    assert recognize(cache) == first
    assert recognize(cache, ROWS * np.float32(1.001)) == other
    elsewhere = Namespace({"net": "other"}, "other")
    assert recognize(cache, ROWS, elsewhere).description["net"] == "other"
    assert recognize(cache, ROWS[:, :2]) not in (first, other)


def test_a_variant_has_rows_of_its_own(cache):
    first, other = recognize(cache), recognize(cache, ROWS + 1)
    assert keep_row(cache, first) == 1
    assert keep_row(cache, first) == 0
    assert keep_row(cache, other) == 1
    assert cache.info().n_rows == 2  # probe rows are not counted
    assert cache.check().n_variants == (2 if isinstance(cache, FeatureCache) else 1)
    assert cache.clear(first.key) == 1
    assert keep_row(cache, recognize(cache, ROWS + 1)) == 0
    assert cache.clear() == 1
    assert cache.check().n_variants == 0
    assert keep_row(cache, recognize(cache)) == 1


def test_without_a_cache_each_is_new():
    assert recognize(NoCache()) == recognize(NoCache())


def test_nan_rows_are_handed_to_whoever_compares(cache):
    rows = ROWS.copy()
    rows[0, 0] = np.nan

    def same(found, known):
        return np.array_equal(found, known, equal_nan=True)

    found = []

    for _ in range(2):
        with cache.open() as store:
            found.append(store.recognize([PLACE], [rows.copy()], same))
    assert found[0] == found[1]


def run_sql(cache, statement):
    with cache.open() as store:
        store.run(lambda connection: connection.execute(statement), writing=True)


def test_damaged_probe_rows_are_found_and_replaced(tmp_path):
    cache = FeatureCache(tmp_path)
    first = recognize(cache)
    run_sql(cache, "UPDATE variants SET data = zeroblob(24)")
    report = cache.check(repair=False)
    assert not report.ok and report.n_damaged_variants == 1
    assert "1 of 1 networks' probe rows are damaged" in str(report)
    assert recognize(cache) == first  # the same rows have the same name
    assert cache.check().ok
    run_sql(cache, "UPDATE variants SET name = 7")
    assert cache.check().repaired
    assert cache.check().n_variants == 0


def test_damaged_entries_of_a_mapping_are_found_and_replaced():
    mapping = {}
    cache = MappingCache(mapping)
    first = recognize(cache)
    [name] = mapping
    for damaged in (b"", b"skdv", mapping[name][:-1], bytes(len(mapping[name])), 7):
        mapping[name] = damaged
        assert recognize(cache) == first
    mapping[name] = b"damaged"
    assert cache.check().n_damaged_variants == 1
    assert not mapping


def test_two_that_come_at_once_end_with_one(tmp_path):
    caches = [FeatureCache(tmp_path) for _ in range(4)]
    start, found = threading.Barrier(len(caches)), []

    def work(number, cache):
        rows = ROWS * np.float32(1 + number * 1e-6)  # not the same to the last bit
        start.wait()
        found.append(recognize(cache, rows))

    threads = [threading.Thread(target=work, args=one) for one in enumerate(caches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert caches[0].check().n_variants == 1


def test_the_number_of_variants_is_limited(cache, monkeypatch):
    for module in (_variants, _mapping_layout):
        monkeypatch.setattr(module, "MAX_VARIANTS", 3)
    found = [recognize(cache, ROWS + i) for i in range(5)]
    assert len(set(found)) == 5
    assert [recognize(cache, ROWS + i) for i in (2, 3, 4)] == found[2:]


def test_variants_without_rows_go_with_what_is_evicted(tmp_path):
    cache = FeatureCache(tmp_path)
    kept, unused = recognize(cache), recognize(cache, ROWS + 1)
    keep_row(cache, kept)

    def evict(connection, now):
        _variants.delete_unused(connection, now)

    now = int(cache._clock())
    with cache.open() as store:
        assert isinstance(store, SQLiteStore)
        store.run(lambda c: evict(c, now), writing=True)
    assert cache.check().n_variants == 2  # too young: rows may be on their way
    with cache.open() as store:
        store.run(lambda c: evict(c, now + 10**6), writing=True)
    assert cache.check().n_variants == 1
    assert recognize(cache) == kept != unused


def test_a_store_that_cannot_be_used_is_not_a_reason_to_fail(tmp_path):
    path = tmp_path / "file"
    path.write_text("in the way")
    with pytest.warns(CacheWarning, match="not a directory"):
        assert recognize(FeatureCache(path)) == recognize(NoCache())
