"""What the cache takes on disk, and what it lets go of first."""

import contextlib
import os
import pathlib
import sqlite3

import numpy as np
import pytest

from skdeepfeat._utils._filestat import FileStat
from skdeepfeat.cache import FeatureCache, _eviction, _rows, _sqlite_audit
from skdeepfeat.cache._size import Limits
from skdeepfeat.exceptions import CacheWarning
from tests.cache.pretend import Nets, key_of, lookup, remember

MB = 1_000_000
HOUR = 3600


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(FeatureCache, "_clock", clock)
    return clock


def size_of(directory):
    return sum(
        file.stat().st_size for file in pathlib.Path(directory).glob("*.sqlite*")
    )


# 4,000 bytes a row, 16 rows a page.
N_FEATURES = 1000
SIZES = {"small": 250, "large": 4000}


def nets(name="a", **options):
    return Nets({name: N_FEATURES}, batch_size=50, **options)


def test_the_file_stays_within_its_limit(directory):
    cache = FeatureCache(directory, max_size=8 * MB)
    sizes = []

    class Watching(Nets):
        def batch(self, images, indices):
            sizes.append(size_of(directory) if directory.exists() else 0)
            return super().batch(images, indices)

    for first in range(0, 10_000, 1000):
        Watching({"a": N_FEATURES}, batch_size=50).fetch(
            cache, range(first, first + 1000)
        )
        assert size_of(directory) <= 8 * MB
        assert cache.info().size <= 8 * MB
    assert max(sizes) <= 10 * MB  # file and log in the middle of the work
    assert 4 * MB < size_of(directory)
    assert cache.check().ok
    # What came last is still there.
    assert nets().check_fetch(cache, range(9_500, 10_000)) == []


def test_the_least_recently_used_rows_go_first(directory, clock):
    cache = FeatureCache(directory, max_size=9 * MB)
    for name in "abc":
        nets(name).fetch(cache, range(400))
        clock.now += HOUR
    nets("a").check_fetch(cache, range(400))
    clock.now += HOUR
    nets("d").fetch(cache, range(400))
    for name in "acd":
        assert nets(name).check_fetch(cache, range(350)) == [], name
    assert nets("b").check_fetch(cache, range(10)) == list(range(10))
    clock.now += HOUR
    nets("c").check_fetch(cache, range(10))
    assert cache.info().namespaces[0].label == "c, avg, float32"


def test_small_old_rows_go_before_large_new_ones(directory, clock):
    cache = FeatureCache(directory, max_size=9 * MB)
    small, large = (Nets({name: n}, batch_size=50) for name, n in SIZES.items())
    small.fetch(cache, range(4000))
    clock.now += HOUR
    large.fetch(cache, range(200))
    clock.now += HOUR
    nets().fetch(cache, range(300))
    assert large.check_fetch(cache, range(200)) == []
    assert len(small.check_fetch(cache, range(4000))) > 1000


def test_within_a_namespace_too(directory, clock):
    cache = FeatureCache(directory, max_size=8 * MB)
    one = nets()
    one.fetch(cache, range(1200))
    clock.now += HOUR
    recent = list(range(300, 700))
    assert one.check_fetch(cache, recent) == []
    clock.now += HOUR
    one.fetch(cache, range(2000, 2600))
    assert one.check_fetch(cache, [*recent, *range(2000, 2600)]) == []
    assert cache.info().n_rows < 1800


def test_a_job_larger_than_the_limit(directory, clock):
    cache = FeatureCache(directory, max_size=4 * MB)
    one = nets()
    with pytest.warns(CacheWarning, match=r"4\.0 MB, which is too small") as caught:
        assert one.check_fetch(cache, range(3000)) == list(range(3000))
    assert len(caught) == 1
    n_rows = cache.info().n_rows
    assert 300 < n_rows < 1000
    assert size_of(directory) <= 4 * MB
    # What was kept is of use next time, it has not been pushed out by the rest.
    with pytest.warns(CacheWarning, match="too small"):
        assert len(one.check_fetch(cache, range(3000))) == 3000 - n_rows


def test_a_limit_below_an_empty_file(directory):
    cache = FeatureCache(directory, max_size=1000)
    with pytest.warns(CacheWarning, match="too small"):
        nets().check_fetch(cache, range(20))
    assert cache.info().n_rows == 0


def test_a_lower_limit_shrinks_the_file(directory):
    FeatureCache(directory)
    nets().fetch(FeatureCache(directory), range(2000))
    assert size_of(directory) > 8 * MB
    nets().fetch(FeatureCache(directory, max_size=4 * MB), [5000])
    assert size_of(directory) <= 4 * MB
    assert FeatureCache(directory).check().ok
    assert nets().check_fetch(FeatureCache(directory), [5000]) == []


def test_no_limit(directory):
    cache = FeatureCache(directory, max_size=None)
    nets().fetch(cache, range(3000))
    assert nets().check_fetch(cache, range(3000)) == []


def test_scattered_rows_are_evicted_until_pages_come_free(directory, clock):
    cache = FeatureCache(directory, max_size=10 * MB)
    one = nets()
    one.fetch(cache, range(1400))
    clock.now += HOUR
    # One row of each page is used again, which keeps no page from being freed.
    one.check_fetch(cache, range(0, 1400, 16))
    clock.now += HOUR
    for first in range(2000, 6000, 500):
        one.check_fetch(cache, range(first, first + 500))
        clock.now += HOUR
        assert size_of(directory) <= 10 * MB
    assert cache.check().ok


def test_clear_gives_the_space_back(directory):
    cache = FeatureCache(directory)
    nets("a").fetch(cache, range(1000))
    nets("b").fetch(cache, range(500))
    full = size_of(directory)
    assert cache.clear("b, avg*") == 500
    assert size_of(directory) < full - 1.5 * MB
    assert nets("a").check_fetch(cache, range(1000)) == []
    assert cache.clear("nothing like it") == 0
    assert cache.clear(cache.info().namespaces[0].key) == 1000
    assert cache.info().namespaces == ()
    nets("a").fetch(cache, range(1000))
    remember(cache, [FileStat("/x", 1, 2, 3)], [key_of(0)])
    assert cache.clear() == 1000
    assert size_of(directory) <= 12 * 65536
    info = cache.info()
    assert (info.n_rows, info.n_files) == (0, 0)
    assert cache.check().ok


def test_reading_hardly_ever_writes(directory, clock):
    cache = FeatureCache(directory)
    nets().fetch(cache, range(100))
    path = cache.info().path

    def last_use():
        with sqlite3.connect(path) as connection:
            return connection.execute(
                "SELECT min(used), max(used) FROM used"
            ).fetchone()

    written = int(clock.now)
    before = os.stat(path).st_mtime_ns
    clock.now += _eviction.USE_GRANULARITY / 2
    nets().fetch(cache, range(100))
    assert last_use() == (written, written)
    assert os.stat(path).st_mtime_ns == before
    clock.now += _eviction.USE_GRANULARITY
    nets().fetch(cache, range(100))
    assert last_use() == (int(clock.now), int(clock.now))


def test_only_rows_that_were_read_count_as_used(directory, clock):
    # Their neighbors in the file are looked at with them.
    cache, read = FeatureCache(directory), [*range(0, 40, 2), 41, 43, *range(60, 90)]
    nets().fetch(cache, range(100))
    written, clock.now = int(clock.now), clock.now + HOUR
    nets().fetch(cache, read)
    with sqlite3.connect(cache.info().path) as connection:
        used = connection.execute("SELECT used FROM used ORDER BY id").fetchall()
    assert {i for i, (time,) in enumerate(used) if time > written} == set(read)


def test_the_memory_of_files_is_bounded(directory, clock):
    cache = FeatureCache(directory, max_size=2 * MB)  # 2000 files
    stats = [FileStat(f"/x/{i}", i, i, i) for i in range(2500)]
    digests = [key_of(i) for i in range(2500)]
    for start in range(0, 2500, 500):
        remember(cache, stats[start : start + 500], digests[start : start + 500])
        clock.now += 1
    found = lookup(cache, stats)
    assert found[-500:] == digests[-500:]
    assert found[:500] == [None] * 500
    assert cache.info().n_files == sum(digest is not None for digest in found) <= 2000


def test_more_files_are_remembered_in_a_larger_cache():
    assert Limits(2 * MB).n_files == 2000
    assert Limits(100_000 * MB).n_files == 100_000_000
    assert Limits(None).n_files is None


def test_files_are_counted_once_for_many_writes(directory, statements):
    with FeatureCache(directory, max_size=2 * MB).open() as store:
        for i in range(20):
            store.remember([FileStat(f"/x/{i}", i, i, i)], [key_of(i)])
    assert sum("sum(1) FROM files" in one for one in statements) == 1


# -- Millions of rows: in small parts here


@pytest.fixture
def small_parts(monkeypatch):
    """Evict and clear as if a few rows were many."""
    monkeypatch.setattr(_eviction, "AT_ONCE", 200_000)
    monkeypatch.setattr(_eviction, "_N_CANDIDATES", 7)


def test_eviction_in_parts_keeps_the_order(directory, clock, small_parts):
    test_the_least_recently_used_rows_go_first(directory, clock)
    test_within_a_namespace_too(directory / "another", clock)
    for each in (directory, directory / "another"):
        assert FeatureCache(each).check().ok


def deletions(statements):
    """Return how many rows each transaction has removed."""
    found = [0]
    for one in statements:
        if one.startswith("BEGIN"):
            found.append(0)
        found[-1] += one.startswith("DELETE FROM rows")
    return [n for n in found if n]


@pytest.mark.parametrize("how", ["evict", "clear"])
def test_others_can_write_while_rows_are_removed(
    directory, statements, small_parts, how
):
    cache = FeatureCache(directory, max_size=8 * MB)
    nets("b").fetch(cache, range(10))
    nets("a").fetch(cache, range(1200))
    del statements[:]
    if how == "evict":
        nets("a").fetch(cache, range(2000, 2600))
    else:
        assert cache.clear("a,*") == 1200
        assert cache.info().n_rows == 10
    removed = deletions(statements)
    assert len(removed) > 4
    assert max(removed) <= 51  # 200,000 bytes
    assert cache.check().ok


def test_rows_that_are_written_while_their_namespace_is_removed(
    directory, small_parts, monkeypatch
):
    """They go, too: the next namespace gets the number of this one."""
    cache, transaction = FeatureCache(directory), _rows.transaction
    nets("b").fetch(cache, range(5))
    nets("a").fetch(cache, range(200))
    n_parts = []

    @contextlib.contextmanager
    def interrupted(connection, kind="DEFERRED"):
        with transaction(connection, kind):
            yield
        n_parts.append(kind)
        if n_parts.count("IMMEDIATE") == 2:
            with monkeypatch.context() as patched:
                patched.setattr(_rows, "transaction", transaction)
                nets("a").fetch(FeatureCache(directory), range(200, 220))

    with monkeypatch.context() as patched:
        patched.setattr(_rows, "transaction", interrupted)
        assert cache.clear("a,*") == 220
    assert cache.info().n_rows == 5
    assert nets("c").check_fetch(cache, range(220)) == list(range(220))
    assert cache.check().ok


def test_rows_of_one_time_are_not_walked_past_for_each_part(
    directory, clock, small_parts
):
    cache = FeatureCache(directory)
    nets("a").fetch(cache, range(3000))
    with contextlib.closing(sqlite3.connect(cache.info().path)) as connection:
        steps = []
        connection.set_progress_handler(lambda: steps.append(1) and None, 100)
        in_use = np.arange(1, 2991)
        found = list(_eviction._least_recently_used(connection, in_use))
    assert [row_id for row_id, _ in found] == list(range(2991, 3001))
    assert len(steps) < 3000  # with 430 parts of 7 rows each


def test_a_namespace_counts_as_used_when_its_rows_are(directory, clock):
    cache = FeatureCache(directory)
    nets("a").fetch(cache, range(5))
    clock.now += HOUR
    nets("b").fetch(cache, range(5))
    clock.now += HOUR
    nets("a").fetch(cache, range(3))
    labels = [one.label[0] for one in cache.info().namespaces]
    times = [one.last_used.timestamp() for one in cache.info().namespaces]
    assert labels == ["a", "b"]
    assert times == [int(clock.now), int(clock.now - HOUR)]


def test_info_reads_no_rows(directory):
    """It would read all of a large file."""
    cache = FeatureCache(directory)
    nets().fetch(cache, range(10))
    with sqlite3.connect(cache.info().path) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN " + _sqlite_audit.COUNT_ROWS
        ).fetchall()
    connection.close()
    assert [row[3] for row in plan] == ["SCAN rows USING COVERING INDEX rows_by_key"]


@pytest.mark.parametrize("n_wanted", [3000, 1500, 700, 2, 1])
def test_some_of_many_rows_are_found(directory, n_wanted):
    """However densely they lie in the index."""
    cache, several = FeatureCache(directory), Nets({"a": 3}, batch_size=500)
    several.fetch(cache, range(3000))
    some = [*range(n_wanted), -1]
    assert several.check_fetch(cache, some) == [-1]


def test_the_log_stays_small_while_the_file_shrinks(directory, monkeypatch):
    cache = FeatureCache(directory, max_size=20 * MB)
    nets().fetch(cache, range(3000))
    path, sizes = cache.open().path, []
    monkeypatch.setattr(_eviction, "AT_ONCE", 2**20)

    class Connection(sqlite3.Connection):
        def executescript(self, text):
            result = super().executescript(text)
            sizes.append(size_of(directory) - os.path.getsize(path))
            return result

    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda *a, **k: connect(*a, **k, factory=Connection)
    )
    assert cache.clear("a*") == 3000
    assert len(sizes) > 5
    assert max(sizes) < 3 * MB
    assert size_of(directory) <= 1 * MB
