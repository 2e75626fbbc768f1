"""Caches in mappings: what the file on disk promises, as far as a mapping can."""

import copy
import pickle
import threading
import uuid

import fsspec
import joblib
import numpy as np
import pytest
from child import forbid_writing, in_child
from object_store import s3_options, s3_server  # noqa: F401
from sklearn.base import clone

from skdeepfeat._utils._filestat import FileStat
from skdeepfeat.cache import FeatureCache, MappingCache, Namespace, open_cache
from skdeepfeat.exceptions import CacheWarning
from tests.cache.pretend import Nets, fetch, key_of, lookup, remember
from tests.cache.test_fetch import (  # noqa: F401
    test_a_namespace_that_does_not_describe_its_network,
    test_a_row_missing_in_one_namespace_is_computed_for_all,
    test_any_sequence_agrees_with_a_dict,
    test_batches_may_come_in_any_order,
    test_blocks_of_the_wrong_shape,
    test_compute_is_asked_for_first_occurrences_in_order,
    test_compute_is_closed_when_its_rows_are_refused,
    test_duplicates_are_computed_once_and_gathered,
    test_duplicates_of_a_known_row,
    test_failed_rows_are_nan_and_tried_again,
    test_reused_buffers_of_a_network_do_no_harm,
    test_rows_that_are_not_finite_are_refused_and_the_others_stored,
    test_rows_wider_than_a_page,
    test_the_same_namespace_twice,
    test_what_was_computed_before_an_error_is_stored,
    test_width_is_asked_for_when_every_row_failed,
)


class CountingDict(dict):
    """A mapping that counts what is asked of it, and refuses on request."""

    def __init__(self):
        super().__init__()
        self.n_read = self.n_written = 0
        self.refuses = {}

    def _refuse(self, what):
        if what in self.refuses:
            raise self.refuses[what]

    def __getitem__(self, name):
        self.n_read += 1
        self._refuse("read")
        return super().__getitem__(name)

    def __setitem__(self, name, value):
        self.n_written += 1
        self._refuse("write")
        assert type(name) is str and type(value) is bytes
        super().__setitem__(name, value)

    def __iter__(self):
        self._refuse("list")
        return super().__iter__()


def memory_mapping(request):
    # A folder of its own: all memory file systems of a process are one.
    fs, folder = fsspec.filesystem("memory"), f"/rows-{uuid.uuid4().hex}"
    request.addfinalizer(lambda: fs.exists(folder) and fs.rm(folder, recursive=True))
    return fs.get_mapper(folder)


def local_mapping(request):
    folder = request.getfixturevalue("tmp_path") / "rows"
    return fsspec.get_mapper(f"file://{folder}")


def s3_mapping(request):
    options = request.getfixturevalue("s3_options")
    return fsspec.get_mapper("s3://bucket/rows", **options)


MAPPINGS = {
    "dict": lambda request: {},
    "memory": memory_mapping,
    "local": local_mapping,
    "s3": s3_mapping,
}


@pytest.fixture(
    params=["dict", "memory", "local", pytest.param("s3", marks=pytest.mark.slow)]
)
def mapping(request):
    return MAPPINGS[request.param](request)


@pytest.fixture
def cache(mapping):
    return MappingCache(mapping)


@pytest.fixture
def any_cache(cache):
    return cache


@pytest.fixture
def counted():
    return CountingDict()


def row_names(mapping):
    return sorted(name for name in mapping if not name.endswith(".json"))


def fetch_with_one_warning(cache, nets, images, match):
    with pytest.warns(CacheWarning, match=match) as caught:
        computed = nets.check_fetch(cache, images)
    assert len(caught) == 1
    return computed


def test_rows_are_computed_once_ever(mapping):
    nets = Nets({"a": 6})
    rng = np.random.default_rng(0)
    for _ in range(4):
        nets.check_fetch(MappingCache(mapping), rng.permutation(40)[:30].tolist())
    assert len(nets.computed) == len(set(nets.computed))


def test_the_layout_is_the_one_that_is_written_down():
    """Another version of this package reads what this one wrote."""
    mapping = {}
    namespace = Namespace({"net": "a"}, "label")
    row = np.array([[1, -2]], np.float32)
    key = bytes(range(32))
    fetch(MappingCache(mapping), [namespace], [key], lambda i: [(i, [row])], None)
    folder = f"skdeepfeat-v1/{namespace.key}"
    assert mapping == {
        f"{folder}/{key.hex()}": bytes.fromhex("736b6466 2c31220a 0000803f 000000c0"),
        f"{folder}/namespace.json": b'{"description": {"net": "a"}, "label": "label"}',
    }


# -- How much is asked of the mapping


def test_each_row_is_asked_for_once(counted):
    nets, cache = Nets({"a": 3}, batch_size=100), MappingCache(counted)
    nets.check_fetch(cache, [*range(20), *range(10)])
    assert (counted.n_read, counted.n_written) == (20, 21)
    nets.check_fetch(cache, range(20))
    assert (counted.n_read, counted.n_written) == (40, 21)


@pytest.mark.slow
def test_a_store_over_the_network_is_asked_for_many_at_once(s3_options, monkeypatch):  # noqa: F811
    mapping = fsspec.get_mapper("s3://bucket/rows", **s3_options)
    sizes = []
    original = type(mapping).getitems

    def spy(self, keys, on_error="raise"):
        sizes.append(len(keys))
        return original(self, keys, on_error)

    monkeypatch.setattr(type(mapping), "getitems", spy)
    nets = Nets({"a": 3}, batch_size=100)
    for _ in range(2):
        nets.check_fetch(MappingCache(mapping), range(60))
    assert sizes == [60, 60]
    assert len(nets.computed) == 60


@pytest.mark.parametrize("n_threads", [1, 4])
def test_threads_on_request(counted, n_threads):
    seen, original = set(), CountingDict.__getitem__

    class Watched(CountingDict):
        def __getitem__(self, name):
            seen.add(threading.get_ident())
            return original(self, name)

    cache = MappingCache(Watched(), n_threads=n_threads)
    nets = Nets({"a": 3})
    assert len(nets.check_fetch(cache, range(60))) == 60
    assert nets.check_fetch(cache, range(60)) == []
    assert (seen == {threading.get_ident()}) == (n_threads == 1)


# -- Damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: bytes(len(value)),
        lambda value: value[:-4],
        lambda value: value[:3],
        lambda value: value + bytes(4),
        lambda value: b"XXXX" + value[4:],
        lambda value: value[:-1] + bytes([value[-1] ^ 1]),
        lambda value: bytearray(value)[::-1],
    ],
)
def test_damaged_rows_are_computed_again_and_replaced(mapping, damage):
    nets, cache = Nets({"a": 4}), MappingCache(mapping)
    nets.check_fetch(cache, range(10))
    for name in row_names(mapping)[2:4]:
        mapping[name] = bytes(damage(mapping[name]))
    computed = fetch_with_one_warning(cache, nets, range(10), "2 rows .* are damaged")
    assert len(computed) == 2
    assert nets.check_fetch(cache, range(10)) == []
    assert cache.check().ok


@pytest.mark.parametrize("value", ["text", 12.5, None, [1]])
def test_values_that_are_no_bytes(value):
    mapping = {}
    nets, cache = Nets({"a": 4}), MappingCache(mapping)
    nets.check_fetch(cache, range(3))
    mapping[row_names(mapping)[0]] = value
    assert len(fetch_with_one_warning(cache, nets, range(3), "damaged")) == 1


def test_rows_exchanged_between_images_or_networks_are_noticed(mapping):
    nets, cache = Nets({"a": 4, "b": 4}), MappingCache(mapping)
    nets.check_fetch(cache, range(4))
    names = row_names(mapping)
    held = {name: mapping[name] for name in names}
    for one, other in [(names[0], names[1]), (names[2], names[6])]:
        mapping[one], mapping[other] = held[other], held[one]
    fetch_with_one_warning(cache, nets, range(4), "4 rows .* are damaged")


def test_an_empty_value_is_one_that_is_being_written(mapping):
    nets, cache = Nets({"a": 4}), MappingCache(mapping)
    nets.check_fetch(cache, range(5))
    mapping[row_names(mapping)[0]] = b""
    assert len(nets.check_fetch(cache, range(5))) == 1
    assert nets.check_fetch(cache, range(5)) == []


# -- A mapping that refuses


@pytest.mark.parametrize(
    "error", [ConnectionError("gone"), PermissionError("no"), RuntimeError(), OSError()]
)
@pytest.mark.parametrize("what", ["read", "write"])
def test_a_mapping_that_refuses_costs_a_warning(counted, what, error):
    nets, cache = Nets({"a": 3}, batch_size=2), MappingCache(counted)
    nets.check_fetch(cache, range(5))
    counted.refuses[what] = error
    expected = [*range(8)] if what == "read" else [5, 6, 7]
    match = f"MappingCache.*{type(error).__name__}"
    assert fetch_with_one_warning(cache, nets, range(8), match) == expected
    del counted.refuses[what]
    assert nets.check_fetch(cache, range(8)) == [5, 6, 7]


def test_a_mapping_that_cannot_be_listed(counted):
    cache = MappingCache(counted)
    Nets({"a": 3}).check_fetch(cache, range(5))
    counted.refuses["list"] = PermissionError("no listing")
    with pytest.warns(CacheWarning, match="no listing"):
        assert cache.info().n_rows == 0
    with pytest.warns(CacheWarning, match="no listing"):
        assert cache.clear() == 0
    report = cache.check()
    assert not report.ok and "no listing" in str(report)
    assert Nets({"a": 3}).check_fetch(cache, range(5)) == []


def test_a_folder_that_is_read_only(tmp_path):
    def use():
        mapping = fsspec.get_mapper(f"file://{tmp_path}/rows")
        nets, cache = Nets({"a": 3}), MappingCache(mapping)
        nets.check_fetch(cache, range(5))
        forbid_writing(tmp_path)
        assert nets.check_fetch(cache, range(5)) == []
        found = fetch_with_one_warning(cache, nets, range(8), "PermissionError")
        assert found == [5, 6, 7]

    in_child(use)


def test_a_bucket_that_is_not_there(s3_options):  # noqa: F811
    mapping = fsspec.get_mapper("s3://no-such-bucket/rows", **s3_options)
    nets, cache = Nets({"a": 3}), MappingCache(mapping)
    assert len(fetch_with_one_warning(cache, nets, range(4), "bucket")) == 4


def test_a_server_that_is_not_there():
    pytest.importorskip("s3fs")
    options = {
        "key": "x",
        "secret": "y",
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 1}, "connect_timeout": 1},
    }
    mapping = fsspec.get_mapper("s3://bucket/rows", **options)
    mapping.fs.retries = 1
    nets, cache = Nets({"a": 3}), MappingCache(mapping)
    assert len(fetch_with_one_warning(cache, nets, range(4), "connect")) == 4


# -- Several at once


def test_threads_starting_cold(mapping):
    cache = MappingCache(mapping)
    rng = np.random.default_rng(0)
    shares = [rng.permutation(40)[:25].tolist() for _ in range(4)]
    nets = [Nets({"a": 20, "b": 5}) for _ in shares]
    joblib.Parallel(n_jobs=4, backend="threading")(
        joblib.delayed(each.check_fetch)(copy.deepcopy(cache), share)
        for each, share in zip(nets, shares, strict=True)
    )
    computed = [image for each in nets for image in each.computed]
    assert sorted(computed) == sorted(set().union(*shares))
    assert cache.check().ok


def test_processes_starting_cold_share_a_place(tmp_path):
    """The workers of one search take turns, though the mapping has no locks."""

    def fetch(cache, images):
        import time

        import numpy as np

        from skdeepfeat.cache import Namespace

        computed = []

        def compute(indices):
            for i in indices.tolist():
                time.sleep(0.01)
                computed.append(i)
                yield [i], [np.ones((1, 3))]

        keys = [bytes([image]) * 32 for image in images]
        with cache.open() as store:
            store.fetch([Namespace({}, "ones")], keys, compute, None)
        return computed

    cache = MappingCache(fsspec.get_mapper(f"file://{tmp_path}/rows"))
    computed = joblib.Parallel(n_jobs=2)(
        joblib.delayed(fetch)(cache, range(20)) for _ in range(4)
    )
    assert sorted(sum(computed, [])) == list(range(20))


def test_two_machines_compute_the_same_row_and_agree(mapping, monkeypatch, tmp_path):
    cache = MappingCache(mapping)

    class Slow(Nets):
        def batch(self, images, indices):
            # Another machine has other locks.
            monkeypatch.setenv("SKDEEPFEAT_CACHE_DIR", str(tmp_path / "elsewhere"))
            other = Nets({"a": 3})
            assert len(other.check_fetch(MappingCache(mapping), range(4))) == 4
            return super().batch(images, indices)

    assert len(Slow({"a": 3}).check_fetch(cache, range(4))) == 4
    assert Nets({"a": 3}).check_fetch(cache, range(4)) == []
    assert cache.check().ok


# -- The object


def test_open_cache_takes_mappings(mapping):
    cache = open_cache(mapping)
    assert cache == MappingCache(mapping)
    assert open_cache(cache) is cache


@pytest.mark.parametrize("wrong", [None, [], "s3://bucket/rows", FeatureCache()])
def test_what_is_not_a_mapping(wrong):
    with pytest.raises(TypeError, match="'mapping' parameter of MappingCache .* Got"):
        MappingCache(wrong)


@pytest.mark.parametrize("n_threads", [0, -1, 1.5, True, "2"])
def test_n_threads_is_checked(n_threads):
    with pytest.raises(ValueError, match="'n_threads' parameter of MappingCache"):
        MappingCache({}, n_threads=n_threads)


def test_copies_share_the_mapping(counted):
    nets, cache = Nets({"a": 3}), MappingCache(counted, n_threads=2)
    nets.check_fetch(cache, range(4))
    for other in (copy.copy(cache), copy.deepcopy(cache), clone(cache, safe=False)):
        assert other == cache and hash(other) == hash(cache)
        assert other.mapping is counted
        assert nets.check_fetch(other, range(4)) == []
    assert cache != MappingCache({}, n_threads=2)
    assert cache != counted


def test_pickles_lead_to_the_same_place(tmp_path):
    cache = MappingCache(fsspec.get_mapper(f"file://{tmp_path}/rows"))
    other = pickle.loads(pickle.dumps(cache))
    nets = Nets({"a": 3})
    nets.check_fetch(cache, range(4))
    assert nets.check_fetch(other, range(4)) == []


def test_repr():
    assert repr(MappingCache({})) == "MappingCache(<dict>)"
    fs = fsspec.filesystem("memory")
    shown = repr(MappingCache(fs.get_mapper("/rows"), n_threads=3))
    assert shown == "MappingCache(<FSMap at '/rows'>, n_threads=3)"


def test_info_clear_and_check(mapping):
    cache = MappingCache(mapping)
    assert cache.info().n_rows == 0
    mapping["precious"] = b"of another program"
    Nets({"a": 3, "b": 5}).fetch(cache, range(4))
    Nets({"a": 3}).fetch(cache, range(6))
    info = cache.info()
    assert info.n_rows == 10
    assert info.size == 6 * (8 + 12) + 4 * (8 + 20)
    found = {each.label: each for each in info.namespaces}
    one = found["a, avg, float32"]
    assert (one.n_rows, one.n_features, one.last_used) == (6, 3, None)
    assert one.description == {"net": "a", "width": 3}
    assert "6 rows x 3 features" in str(info)
    assert cache.check().n_rows == 10
    assert cache.clear("c*") == 0
    assert cache.clear(one.key) == 6
    assert cache.clear("b,*") == 4
    Nets({"a": 3}).fetch(cache, range(2))
    assert cache.clear() == 2
    assert list(mapping) == ["precious"]
    with pytest.raises(TypeError, match="'namespace' parameter of MappingCache.clear"):
        cache.clear(3)


def test_check_finds_what_is_damaged_and_removes_it(mapping):
    cache = MappingCache(mapping)
    Nets({"a": 4}).check_fetch(cache, range(10))
    for name in row_names(mapping)[:3]:
        mapping[name] = mapping[name][:-1] + b"?"
    report = cache.check(repair=False)
    assert (report.n_rows, report.n_damaged, report.repaired) == (10, 3, False)
    assert cache.check().repaired
    report = cache.check()
    assert report.ok and report.n_rows == 7


def test_digests_of_files_stay_on_this_machine(mapping):
    stat = FileStat("/x", 1, 2, 3)
    remember(MappingCache(mapping), [stat], [key_of(0)])
    assert lookup(MappingCache({}), [stat]) == [key_of(0)]
    assert lookup(FeatureCache(), [stat]) == [key_of(0)]
    assert not [name for name in mapping if name]


def test_the_options_of_a_file_system_are_not_shown():
    class FileSystem:
        storage_options = {"client_kwargs": {"key": "HUSH-HUSH"}}

    class Refusing(dict):
        fs, root = FileSystem(), "https://me:HUSH-HUSH@host/rows?sig=HUSH-HUSH"

        def __getitem__(self, name):
            raise OSError("HUSH-HUSH may not read \x1b[31m")

    cache = MappingCache(Refusing())
    with pytest.warns(CacheWarning) as caught:
        Nets({"a": 3}).check_fetch(cache, range(3))
    shown = repr(cache) + "".join(str(each.message) for each in caught)
    assert "HUSH" not in shown and "\x1b" not in shown
