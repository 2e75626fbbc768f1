"""Workers in the background: no waiting, nothing lost, no thread left running."""

import contextlib
import threading
import time

import pytest

from skdeepfeat.feature_extraction._compute import compute_in_background


def worker_of(compute, log=None):
    @contextlib.contextmanager
    def worker():
        if log is not None:
            log.append(("entered", threading.current_thread().name))
        try:
            yield compute
        finally:
            if log is not None:
                log.append(("left", threading.current_thread().name))

    return worker


def numbers(n, log=None):
    try:
        yield from range(n)
    finally:
        if log is not None:
            log.append("closed")


def threads_running():
    return [t for t in threading.enumerate() if t.name == "skdeepfeat-compute"]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert not threads_running()


def test_one_worker_keeps_the_order():
    found = list(compute_in_background(numbers(50), [worker_of(lambda i: i * i)]))
    assert found == [i * i for i in range(50)]


@pytest.mark.parametrize("n_workers", [2, 5])
def test_several_workers_do_each_item_once(n_workers):
    workers = [worker_of(lambda i: i)] * n_workers
    assert sorted(compute_in_background(numbers(200), workers)) == list(range(200))


def test_no_items_no_results():
    assert list(compute_in_background(numbers(0), [worker_of(lambda i: i)] * 2)) == []


def test_a_worker_lives_in_one_thread_and_not_the_callers():
    log = []
    worker = worker_of(lambda i: threading.current_thread().name, log)
    names = set(compute_in_background(numbers(5), [worker]))
    assert names == {name for _, name in log} == {"skdeepfeat-compute"}
    assert [event for event, _ in log] == ["entered", "left"]


def test_the_caller_works_while_the_worker_does():
    """Each is asleep when it holds a barrier that only both together can pass."""
    barrier = threading.Barrier(2, timeout=120)

    def compute(i):
        if i > 0:  # the first one is computed before the caller has anything
            barrier.wait()
        return i

    found = []
    for i in compute_in_background(numbers(6), [worker_of(compute)]):
        found.append(i)
        if i < 5:
            barrier.wait()
    assert found == list(range(6))


def test_several_workers_work_at_once():
    barrier = threading.Barrier(3, timeout=120)
    workers = [worker_of(lambda i: barrier.wait())] * 3
    assert len(list(compute_in_background(numbers(12), workers))) == 12


def test_no_more_is_computed_ahead_than_can_wait():
    computed = []
    results = compute_in_background(numbers(100), [worker_of(computed.append)])
    next(results)
    time.sleep(0.3)
    # One was taken, one waits in the queue, one for a place there.
    assert len(computed) <= 3
    results.close()
    assert len(computed) <= 4


@pytest.mark.parametrize("where", ["items", "compute", "enter"])
def test_an_error_is_the_callers(where):
    log = []

    def items():
        yield 0
        if where == "items":
            raise KeyError("no more")
        yield 1

    def compute(i):
        if where == "compute":
            raise KeyError("cannot")
        return i

    @contextlib.contextmanager
    def failing():
        raise KeyError("no network")
        yield

    worker = failing if where == "enter" else worker_of(compute, log)
    with pytest.raises(KeyError):
        list(compute_in_background(items(), [worker]))
    if where != "enter":
        assert [event for event, _ in log] == ["entered", "left"]


def test_an_interrupt_in_a_worker_is_handed_on():
    def compute(i):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(compute_in_background(numbers(3), [worker_of(compute)]))


def test_whoever_stops_early_leaves_nothing_running():
    log, items_log = [], []
    workers = [worker_of(lambda i: i, log) for _ in range(3)]
    results = compute_in_background(numbers(1000, items_log), workers)
    next(results)
    results.close()
    assert items_log == ["closed"]
    assert sorted(event for event, _ in log) == ["entered"] * 3 + ["left"] * 3
