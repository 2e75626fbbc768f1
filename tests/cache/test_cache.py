"""The object that users handle."""

import copy
import pathlib
import pickle
import time

import numpy as np
import pytest
from sklearn.base import clone

from skdeepfeat._utils._filestat import FileStat
from skdeepfeat.cache import CacheInfo, FeatureCache, NoCache, open_cache
from skdeepfeat.cache._size import format_size, parse_size
from tests.cache.pretend import Nets, key_of, lookup, remember


def test_making_one_touches_nothing(directory):
    FeatureCache(directory / "deep")
    assert not directory.exists()


def test_the_default_directory_is_looked_up_at_use(tmp_path, monkeypatch):
    cache = FeatureCache()
    for name in ("one", "two"):
        monkeypatch.setenv("SKDEEPFEAT_CACHE_DIR", str(tmp_path / name))
        assert cache.directory == str(tmp_path / name)
        assert Nets({"a": 2}).check_fetch(cache, [1]) == [1]
    monkeypatch.delenv("SKDEEPFEAT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert pathlib.Path(cache.directory).name == "skdeepfeat"
    assert FeatureCache("~/x").directory == str(pathlib.Path.home() / "x")


def test_copies_are_equal_and_work(cache, directory):
    nets = Nets({"a": 3})
    nets.check_fetch(cache, range(4))
    for other in (
        pickle.loads(pickle.dumps(cache)),
        copy.deepcopy(cache),
        clone(cache, safe=False),
        FeatureCache(str(directory), max_size=10_000_000_000),
    ):
        assert other == cache
        assert hash(other) == hash(cache)
        assert nets.check_fetch(other, range(4)) == []
    assert cache != FeatureCache(directory, max_size=None)
    assert cache != FeatureCache(directory / "other")
    assert cache != str(directory)


def test_repr():
    assert repr(FeatureCache()) == "FeatureCache()"
    shown = repr(FeatureCache(pathlib.Path("/x"), max_size="1 GiB"))
    assert shown == "FeatureCache('/x', max_size='1 GiB')"
    assert eval(shown) == FeatureCache("/x", 2**30)
    assert repr(NoCache()) == "NoCache()"


def test_open_cache(directory):
    cache = FeatureCache(directory)
    assert open_cache(cache) is cache
    assert open_cache(directory) == open_cache(str(directory)) == cache
    assert open_cache("default") == FeatureCache()
    none = open_cache(None)
    assert open_cache(none) is none
    assert none == pickle.loads(pickle.dumps(none))
    for wrong in (True, 3, b"x", ["x"]):
        with pytest.raises(TypeError, match=r"'cache' parameter .* Got"):
            open_cache(wrong)


@pytest.mark.parametrize("address", ["s3://bucket/rows", "simplecache::memory://rows"])
def test_addresses_and_empty_paths_are_no_directories(address, monkeypatch):
    with pytest.raises(ValueError, match=r"'cache' parameter .*fsspec\.get_mapper"):
        open_cache(address)
    with pytest.raises(ValueError, match="'path' parameter of FeatureCache is an addr"):
        FeatureCache(address)
    with pytest.raises(ValueError, match="'cache' parameter must not be empty"):
        open_cache("")
    with pytest.raises(ValueError, match="'path' parameter .* must not be empty"):
        FeatureCache("")
    with pytest.raises(ValueError, match="'cache' parameter must .* null character"):
        open_cache("a\0b")
    monkeypatch.setenv("SKDEEPFEAT_CACHE_DIR", address)
    with pytest.raises(ValueError, match="variable SKDEEPFEAT_CACHE_DIR is an address"):
        FeatureCache().info()


def test_no_cache_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("SKDEEPFEAT_CACHE_DIR", str(tmp_path / "cache"))
    cache, nets = open_cache(None), Nets({"a": 3}, bad={2})
    for _ in range(2):
        assert nets.check_fetch(cache, [1, 0, 1, None, 2]) == [1, 0]
    stat = FileStat("/x", 1, 2, 3)
    remember(cache, [stat], [key_of(0)])
    assert lookup(cache, [stat]) == [None]
    assert cache.info() == CacheInfo(None)
    assert str(cache.info()) == "no cache"
    assert cache.clear() == 0
    assert cache.check().ok
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "size, expected",
    [
        (None, None),
        (12, 12),
        (np.int64(12), 12),
        ("12", 12),
        ("500 MB", 500_000_000),
        ("1.5gb", 1_500_000_000),
        (" 2 GiB ", 2**31),
        ("1kB", 1000),
        ("1 KiB", 1024),
        ("3TB", 3 * 10**12),
    ],
)
def test_sizes(size, expected):
    assert parse_size(size) == expected
    FeatureCache(max_size=size)


@pytest.mark.parametrize("size", [0, -1, "0 GB", "", "GB", "1 XB", "-1 GB", "1 GB 2"])
def test_sizes_out_of_range(size):
    with pytest.raises(ValueError, match="'max_size' parameter of FeatureCache"):
        FeatureCache(max_size=size)


@pytest.mark.parametrize("size", [1.5, True, b"1", [1]])
def test_sizes_of_the_wrong_type(size):
    with pytest.raises(TypeError, match="'max_size' parameter of FeatureCache"):
        FeatureCache(max_size=size)


def test_paths_of_the_wrong_type(cache):
    with pytest.raises(TypeError, match="'path' parameter of FeatureCache"):
        FeatureCache(3)
    with pytest.raises(TypeError, match="'namespace' parameter of FeatureCache.clear"):
        cache.clear(3)


def test_sizes_in_words():
    shown = [format_size(n) for n in (None, 0, 999, 1500, 10**10, 10**13)]
    assert shown == ["no limit", "0 bytes", "999 bytes", "1.5 kB", "10.0 GB", "10.0 TB"]


def test_info(cache, directory):
    before = cache.info()
    assert (before.n_rows, before.size, before.namespaces) == (0, 0, ())
    started = time.time()
    Nets({"a": 3, "b": 5}).fetch(cache, range(4))
    Nets({"a": 3}).fetch(cache, range(10))
    info = cache.info()
    assert pathlib.Path(info.path).parent == directory
    assert info.size == pathlib.Path(info.path).stat().st_size
    assert info.max_size == 10**10
    assert info.n_rows == 14
    found = {each.label: each for each in info.namespaces}
    one = found["a, avg, float32"]
    assert (one.n_rows, one.n_features) == (10, 3)
    assert one.description == {"net": "a", "width": 3}
    assert one.key == Nets({"a": 3}).namespaces[0].key
    assert started - 1 <= one.last_used.timestamp() <= time.time() + 1
    text = str(info)
    assert "14 rows" in text
    assert "a, avg, float32: 10 rows x 3 features" in text


def test_directories_with_odd_names(directory):
    cache = FeatureCache(directory / "100% of #1? é 漢字")
    assert Nets({"a": 2}).check_fetch(cache, [1]) == [1]
    assert Nets({"a": 2}).check_fetch(cache, [1]) == []


# -- Digests of files


def test_files_are_known_as_long_as_they_do_not_change(cache):
    stats = [FileStat(f"/x/{i}.jpg", 10, 20, 30) for i in range(1200)]
    digests = [key_of(i) for i in range(1200)]
    assert lookup(cache, stats) == [None] * 1200
    remember(cache, stats, digests)
    assert lookup(cache, stats[::-1] + stats[:2]) == (digests[::-1] + digests[:2])
    changed = [
        stats[0]._replace(size=11),
        stats[0]._replace(mtime_ns=21),
        stats[0]._replace(inode=31),
        stats[0]._replace(path="/x/new.jpg"),
    ]
    assert lookup(cache, changed) == [None] * 4
    remember(cache, changed[:1], [key_of(-1)])
    assert lookup(cache, [changed[0], stats[0]]) == [key_of(-1), digests[0]]
    # A few among many: the other way of looking up.
    few = [stats[i] for i in (1100, 3, 500)]
    assert lookup(cache, few) == [digests[i] for i in (1100, 3, 500)]
    assert cache.info().n_files == 1201


def test_files_with_odd_names_and_large_numbers(cache):
    stats = [
        FileStat("/x/é漢.jpg", 1, 2, 3),
        FileStat("/x/\udcff.jpg", 1, 2, 3),
        FileStat("/x/big", 2**70, 2**60, 2**127),
    ]
    digests = [key_of(i) for i in range(3)]
    remember(cache, stats, digests)
    assert lookup(cache, stats) == digests


# -- Few steps for many rows


def test_known_rows_take_few_statements(directory, statements):
    nets, images = Nets({"a": 8}, batch_size=500), list(range(3000))
    nets.check_fetch(FeatureCache(directory), images)
    del statements[:]
    assert nets.check_fetch(FeatureCache(directory), images[::-1]) == []
    assert 0 < len(statements) < 100


def test_known_files_take_few_statements(directory, statements):
    stats = [FileStat(f"/images/{i:06}.jpg", i, i, i) for i in range(3000)]
    digests = [key_of(i) for i in range(3000)]
    remember(FeatureCache(directory), stats, digests)
    del statements[:]
    assert lookup(FeatureCache(directory), stats) == digests
    assert 0 < len(statements) < 100


def test_files_of_other_versions_are_reported_and_left_alone(cache):
    Nets({"a": 3}).check_fetch(cache, range(4))
    assert cache.info().other_formats == ()
    folder = pathlib.Path(cache.directory)
    old = folder / "features-v1.sqlite"
    old.write_bytes(b"of another version")
    info = cache.info()
    assert info.other_formats == (str(old),)
    assert f"of another version: {old}" in str(info)
    assert cache.clear() == 4
    assert old.read_bytes() == b"of another version"
