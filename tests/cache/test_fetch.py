"""What a fetch returns, and how little it computes for it."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skdeepfeat.cache import FeatureCache, MappingCache, Namespace, open_cache
from tests.cache.pretend import Nets, fetch, key_of, lookup, row_of


@pytest.fixture(params=["on disk", "none"])
def any_cache(request, directory):
    return FeatureCache(directory) if request.param == "on disk" else open_cache(None)


def test_rows_are_computed_once_ever(cache):
    nets = Nets({"a": 6})
    rng = np.random.default_rng(0)
    assert sorted(nets.check_fetch(cache, range(50))) == list(range(50))
    for _ in range(3):
        fold = rng.permutation(60)[:40].tolist()
        nets.check_fetch(cache, fold)
    assert len(nets.computed) == len(set(nets.computed))
    again = Nets({"a": 6})
    again.check_fetch(FeatureCache(cache.path), sorted(nets.computed))
    assert again.n_calls == 0


def test_duplicates_are_computed_once_and_gathered(any_cache):
    nets = Nets({"a": 3, "b": 5}, bad={4})
    images = [2, 2, None, 1, 4, 2, 4, None, 1]
    assert sorted(nets.check_fetch(any_cache, images)) == [1, 2]
    assert nets.n_calls == nets.n_closed == 1


def test_duplicates_of_a_known_row(cache):
    nets = Nets({"a": 3})
    nets.check_fetch(cache, [1])
    assert nets.check_fetch(cache, [1, 0, 1, 1, 0]) == [0]


def test_compute_is_asked_for_first_occurrences_in_order(any_cache):
    asked = []

    def compute(indices):
        asked.append(indices)
        assert indices.dtype.kind == "i"
        yield indices, [np.ones((len(indices), 2))]

    keys = [None, key_of(1), key_of(0), key_of(1), key_of(2)]
    fetch(any_cache, [Namespace({}, "ones")], keys, compute, None)
    np.testing.assert_array_equal(asked, [[1, 2, 4]])


def test_batches_may_come_in_any_order(cache):
    def backwards(indices):
        for i in reversed(indices.tolist()):
            yield [i], [[row_of(i, "a", 4)]]

    nets = Nets({"a": 4})
    keys = [key_of(i) for i in range(9)]
    (output,) = fetch(cache, nets.namespaces, keys, backwards, None)
    np.testing.assert_array_equal(output, nets.expected(range(9))[0])
    assert nets.check_fetch(cache, range(9)) == []


@pytest.mark.parametrize("kind", ["on disk", "mapping", "none"])
@pytest.mark.parametrize("known", [[], [1, 2, 3]], ids=["nothing", "some"])
def test_keys_that_come_in_parts(directory, monkeypatch, known, kind):
    monkeypatch.setenv("SKDEEPFEAT_CACHE_DIR", str(directory))
    kinds = {"on disk": FeatureCache(directory), "mapping": MappingCache({})}
    cache = kinds.get(kind, open_cache(None))
    Nets({"a": 3, "b": 5}).check_fetch(cache, known)
    nets = Nets({"a": 3, "b": 5}, bad={4})
    parts = [[2, 2, None, 0], [1, 4, 2], [], [4, 2], [None, 5, 1, 3, 0]]
    images, computed = sum(parts, []), []
    keys = iter([[i if i is None else key_of(i) for i in part] for part in parts])

    def read_more():
        computed.append(list(nets.computed))
        return next(keys)

    outputs = fetch(
        cache,
        nets.namespaces,
        next(keys),
        nets.compute(images),
        lambda: nets.widths.values(),
        n_rows=len(images),
        read_more=read_more,
    )
    for output, expected in zip(outputs, nets.expected(images), strict=True):
        np.testing.assert_array_equal(output, expected)
    new = [i for i in (2, 0, 1, 5, 3) if kind == "none" or i not in known]
    assert nets.computed == new
    # A part is computed before the next one is read.
    assert computed[0] == [i for i in new if i in (2, 0)]
    assert computed[3] == [i for i in new if i in (2, 0, 1)]
    if kind != "none":
        assert nets.check_fetch(cache, images) == []


def test_a_row_missing_in_one_namespace_is_computed_for_all(cache):
    Nets({"a": 3}).check_fetch(cache, range(6))
    Nets({"b": 2}).check_fetch(cache, range(3, 9))
    both = Nets({"a": 3, "b": 2})
    assert sorted(both.check_fetch(cache, range(10))) == [0, 1, 2, 6, 7, 8, 9]
    assert both.check_fetch(cache, range(10)) == []
    assert cache.info().n_rows == 20


def test_the_same_namespace_twice(cache):
    namespace = Namespace({"net": "a"}, "a")

    def compute(indices):
        yield indices, [np.ones((len(indices), 2))] * 2

    keys = [key_of(0), key_of(1)]
    for _ in range(2):
        first, second = fetch(cache, [namespace] * 2, keys, compute, None)
        np.testing.assert_array_equal(first, np.ones((2, 2)))
        np.testing.assert_array_equal(second, first)
    assert cache.info().n_rows == 2


def test_failed_rows_are_nan_and_tried_again(cache):
    nets = Nets({"a": 3, "b": 1}, bad={1, 5})
    nets.check_fetch(cache, range(8))
    nets.bad = {5}
    assert nets.check_fetch(cache, range(8)) == [1]


@pytest.mark.parametrize("images", [[], [None, None]], ids=["empty", "all bad"])
def test_width_of_nothing(cache, images):
    nets = Nets({"a": 3, "b": 7})
    shapes = [(len(images), 3), (len(images), 7)]
    outputs = nets.fetch(cache, images)
    assert [output.shape for output in outputs] == shapes
    assert all(np.isnan(output).all() for output in outputs)
    assert nets.n_calls == 0
    # Once the store can tell, nobody else is asked.
    nets.check_fetch(cache, [1])
    keys = [None] * len(images)
    outputs = fetch(cache, nets.namespaces, keys, None, None)
    assert [output.shape for output in outputs] == shapes


def test_width_is_asked_for_when_every_row_failed(any_cache):
    nets = Nets({"a": 3}, bad={0, 1})
    (output,) = nets.fetch(any_cache, [0, 1])
    assert output.shape == (2, 3)
    assert np.isnan(output).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_refused_and_the_others_stored(cache, value):
    """Failures are positions that compute leaves out, never values."""
    namespace, calls = [Namespace({}, "odd")], []
    rows = np.array([[1, 2], [3, value], [5, 6]], np.float32)

    def compute(indices):
        calls.append(indices.tolist())
        yield indices, [rows[indices]]

    keys = [key_of(i) for i in range(3)]
    for _ in range(2):
        with pytest.raises(ValueError, match="'odd'"):
            fetch(cache, namespace, keys, compute, None)
    assert calls == [[0, 1, 2], [1]]
    (output,) = fetch(cache, namespace, [keys[2], keys[0]], None, None)
    np.testing.assert_array_equal(output, rows[[2, 0]])


def test_what_is_computed_in_addition_is_stored_if_it_is_finite(cache):
    wanted, other = Namespace({"n": 1}, "wanted"), Namespace({"n": 2}, "other")

    def compute(indices):
        yield indices, [np.ones((2, 3)), np.array([[1.0], [np.nan]])]

    keys = [key_of(0), key_of(1)]
    (rows,) = fetch(cache, [wanted], keys, compute, None, also=lambda: [other])
    np.testing.assert_array_equal(rows, np.ones((2, 3)))
    assert {one.label: one.n_rows for one in cache.info().namespaces} == {
        "wanted": 2,
        "other": 1,
    }


def test_what_was_computed_before_an_error_is_stored(cache):
    class Broken(Exception):
        pass

    error, nets = Broken("image 8"), Nets({"a": 5})
    closed = []

    def breaking(images):
        def compute(indices):
            try:
                for i in indices:
                    if images[i] == 8:
                        raise error
                    yield nets.batch(images, [i])
            finally:
                closed.append(True)

        return compute

    images = list(range(12))
    keys = [key_of(i) for i in images]
    with pytest.raises(Broken) as caught:
        fetch(cache, nets.namespaces, keys, breaking(images), None)
    assert caught.value is error
    assert caught.value.__context__ is None
    assert closed == [True]
    assert nets.check_fetch(cache, images) == [8, 9, 10, 11]


def test_compute_is_closed_when_its_rows_are_refused(cache):
    closed = []

    def compute(indices):
        try:
            yield indices, [np.ones((len(indices), 2))]
            yield [99], [np.ones((1, 2))]
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="not asked for"):
        fetch(cache, [Namespace({}, "x")], [key_of(0)], compute, None)
    assert closed == [True]
    # The lock is free again, and what came before the error is there.
    assert cache.info().n_rows == 1
    fetch(cache, [Namespace({}, "x")], [key_of(0)], None, None)


@pytest.mark.parametrize(
    "blocks", [[np.ones((1, 2))] * 2, [np.ones(2)], [np.ones((2, 2))], []]
)
def test_blocks_of_the_wrong_shape(any_cache, blocks):
    with pytest.raises(ValueError, match="compute must yield"):
        fetch(
            any_cache,
            [Namespace({}, "x")],
            [key_of(0)],
            lambda _: [([0], blocks)],
            None,
        )


def test_a_namespace_that_does_not_describe_its_network(cache):
    namespace = [Namespace({}, "careless")]

    def net(width):
        return lambda indices: [(indices, [np.ones((len(indices), width))])]

    fetch(cache, namespace, [key_of(0)], net(2), None)
    with pytest.raises(ValueError, match="'careless' have 2 columns"):
        fetch(cache, namespace, [key_of(0), key_of(1)], net(3), None)


def test_reused_buffers_of_a_network_do_no_harm(cache):
    buffer = np.empty((2, 3), np.float32)

    def compute(indices):
        for start in range(0, len(indices), 2):
            buffer[:] = indices[start : start + 2, None]
            yield indices[start : start + 2], [buffer]

    keys = [key_of(i) for i in range(10)]
    expected = np.repeat(np.arange(10.0)[:, None], 3, axis=1)
    for _ in range(2):
        (output,) = fetch(cache, [Namespace({}, "b")], keys, compute, None)
        np.testing.assert_array_equal(output, expected)


def test_what_is_computed_in_addition_is_stored_where_it_is_not_known(
    any_cache, directory
):
    Nets({"b": 5}).check_fetch(any_cache, range(3))
    Nets({"a": 3}, also={"b": 5, "c": 2}).check_fetch(any_cache, [0, 2, 4, 4, None, 6])
    on_disk = directory.exists()
    assert any_cache.info().n_rows == (5 + 4 + 4 if on_disk else 0)
    for net, width in {"a": 3, "b": 5, "c": 2}.items():
        computed = Nets({net: width}).check_fetch(any_cache, [0, 2, 4, 6])
        assert computed == ([] if on_disk else [0, 2, 4, 6])


def test_known_rows_are_a_reason_to_compute_nothing_in_addition(cache):
    Nets({"a": 3}).check_fetch(cache, range(4))
    nets = Nets({"a": 3}, also={"b": 5})
    assert nets.check_fetch(cache, range(4)) == []
    assert not nets.with_also  # it was not even asked which
    assert nets.check_fetch(cache, range(6)) == [4, 5]
    assert Nets({"b": 5}).check_fetch(cache, range(6)) == [0, 1, 2, 3]


def test_what_is_computed_in_addition_may_be_wanted_too(cache):
    nets = Nets({"a": 3}, also={"a": 3})
    nets.check_fetch(cache, range(4))
    assert nets.check_fetch(cache, range(4)) == []
    assert cache.info().n_rows == 4


def test_failures_are_not_stored_either(cache):
    Nets({"a": 3}, also={"b": 5}, bad={1}).check_fetch(cache, range(3))
    assert Nets({"b": 5}).check_fetch(cache, range(3)) == [1]


def test_what_is_computed_in_addition_must_keep_its_width(cache):
    names = [Namespace({"n": n}, n) for n in ("a", "careless")]

    def net(width):
        return lambda indices: [(indices, [np.ones((len(indices), w)) for w in width])]

    fetch(cache, names[:1], [key_of(0)], net([2, 3]), None, also=lambda: names[1:])
    with pytest.raises(ValueError, match="'careless' have 3 columns"):
        fetch(cache, names[:1], [key_of(1)], net([2, 4]), None, also=lambda: names[1:])


def test_what_is_computed_in_addition_is_not_kept_in_memory(cache):
    """100 MB of rows that nobody asked for now pass through 16 MB or so."""
    wide = Namespace({"n": "wide"}, "wide")
    n_columns, n_rows, batch_size = 65_536, 400, 8

    def compute(indices):
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            block = np.repeat(batch[:, None], n_columns, axis=1).astype(np.float32)
            yield batch, [block[:, :2], block]

    keys = [key_of(i) for i in range(n_rows)]
    tracemalloc.start()
    try:
        (rows,) = fetch(
            cache, [Namespace({}, "x")], keys, compute, None, also=lambda: [wide]
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(rows[:, 1], np.arange(n_rows))
    assert peak < 40 * 2**20
    (stored,) = fetch(cache, [wide], keys[-2:], None, None)
    np.testing.assert_array_equal(stored[:, [0, -1]], [[398, 398], [399, 399]])


def test_rows_wider_than_a_page(cache):
    nets = Nets({"wide": 70_000})
    nets.check_fetch(cache, range(3))
    assert nets.check_fetch(cache, [2, 0, 1]) == []


def test_many_rows_by_index_scan_and_by_single_keys(cache):
    nets = Nets({"a": 2}, batch_size=1000)
    nets.check_fetch(cache, range(3000))
    rng = np.random.default_rng(0)
    for n in (3000, 1501, 700, 10):
        assert nets.check_fetch(cache, rng.permutation(3000)[:n].tolist()) == []


def test_nothing_is_read_or_made_without_need(directory):
    cache = FeatureCache(directory)
    Nets({"a": 2}).fetch(cache, [])
    cache.info(), cache.check(), cache.clear()
    lookup(cache, [])
    assert not directory.exists()


def test_namespaces():
    namespace = Namespace({"b": 1, "a": [2]}, "x")
    assert namespace == Namespace({"a": [2], "b": 1}, "another label")
    assert namespace != Namespace({"a": [2], "b": 2}, "x")
    assert len({namespace, pickle.loads(pickle.dumps(namespace))}) == 1


images = st.lists(st.one_of(st.none(), st.integers(0, 30)), max_size=40)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("fetch"), images, st.sampled_from(["a", "b", "ab"])),
        st.tuples(st.just("clear"), st.sampled_from([None, "a*", "b*", "c"])),
    ),
    max_size=8,
)


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=steps, bad=st.sets(st.integers(0, 30), max_size=5))
def test_any_sequence_agrees_with_a_dict(cache, steps, bad):
    cache.clear()
    widths = {"a": 3, "b": 5}
    known = set()
    for step in steps:
        if step[0] == "clear":
            gone = {pair for pair in known if (step[1] or "*")[0] in (pair[0], "*")}
            assert cache.clear(step[1]) == len(gone)
            known -= gone
            continue
        _, wanted, letters = step
        nets = Nets({net: widths[net] for net in letters}, bad)
        expected = {
            image
            for image in wanted
            if image is not None and image not in bad
            if any((net, image) not in known for net in letters)
        }
        computed = nets.check_fetch(cache, wanted)
        assert len(computed) == len(expected)
        assert set(computed) == expected
        known |= {(net, image) for net in letters for image in expected}
    info = cache.info()
    assert info.n_rows == len(known)
    assert {each.label[0]: each.n_rows for each in info.namespaces} == {
        net: n for net in widths if (n := sum(pair[0] == net for pair in known))
    }
