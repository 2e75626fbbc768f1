"""Several threads and processes on one cache: each row is computed by one of them."""

import json
import logging
import signal
import subprocess
import threading
import time

import joblib
import numpy as np
import pytest

from skdeepfeat._utils._plain_file import _POLL
from skdeepfeat.cache import FeatureCache, Namespace
from tests.cache.pretend import Nets, fetch, finish, key_of, start


class SlowNets(Nets):
    """Takes its time, so that the others come while it is at it."""

    seconds = 0.01

    def batch(self, images, indices):
        time.sleep(self.seconds)
        return super().batch(images, indices)


def overlapping(n_workers, n_images=60, share=40):
    rng = np.random.default_rng(0)
    return [rng.permutation(n_images)[:share].tolist() for _ in range(n_workers)]


def in_threads(functions):
    """Run all at the same moment; return their results, raise their errors."""
    barrier = threading.Barrier(len(functions))

    def begin(function):
        barrier.wait()
        return function()

    return joblib.Parallel(n_jobs=len(functions), backend="threading")(
        joblib.delayed(begin)(function) for function in functions
    )


def test_threads_starting_cold(directory):
    shares = overlapping(8)
    nets = [SlowNets({"a": 20, "b": 5}) for _ in shares]
    in_threads(
        [
            lambda each=each, share=share: each.check_fetch(
                FeatureCache(directory), share
            )
            for each, share in zip(nets, shares, strict=True)
        ]
    )
    computed = [image for each in nets for image in each.computed]
    assert sorted(computed) == sorted(set().union(*shares))
    assert FeatureCache(directory).check().ok


def test_namespaces_in_any_order_do_not_wait_in_a_circle(cache):
    orders = [{"a": 3, "b": 3}, {"b": 3, "a": 3}, {"c": 3, "a": 3}, {"b": 3, "c": 3}]
    nets = [SlowNets(order) for order in orders]
    in_threads([lambda each=each: each.check_fetch(cache, range(30)) for each in nets])
    assert sum(len(each.computed) for each in nets) <= 4 * 30
    assert cache.info().n_rows == 3 * 30


# Computes only once the other script is at it too, which a common lock would forbid.
MEETING = """
    import pathlib, sys, time
    from skdeepfeat.cache import FeatureCache
    from pretend import Nets

    directory, mine, other = sys.argv[1:]

    class Meeting(Nets):
        def batch(self, images, indices):
            pathlib.Path(directory, mine).touch()
            deadline = time.monotonic() + 240
            while not pathlib.Path(directory, other).exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return super().batch(images, indices)

    Meeting({mine: 3}).check_fetch(FeatureCache(directory), range(8))
"""


def test_scripts_with_different_networks_do_not_wait_for_each_other(directory):
    directory.mkdir()
    scripts = [start(MEETING, directory, *pair) for pair in ("ab", "ba")]
    for script in scripts:
        finish(script)
    assert FeatureCache(directory).info().n_rows == 2 * 8


class Watched(SlowNets):
    """Notes how many are at work at the same moment."""

    at_work, most = 0, 0
    guard = threading.Lock()

    def batch(self, images, indices):
        with self.guard:
            Watched.at_work += 1
            Watched.most = max(Watched.most, Watched.at_work)
        try:
            return super().batch(images, indices)
        finally:
            with self.guard:
                Watched.at_work -= 1


@pytest.fixture
def watched(monkeypatch):
    monkeypatch.setattr(Watched, "most", 0)
    return Watched


def test_networks_of_one_process_take_turns(cache, watched):
    nets = [watched({name: 3}) for name in "abcd"]
    in_threads([lambda each=each: each.check_fetch(cache, range(8)) for each in nets])
    assert watched.most == 1


def test_places_do_not_wait_for_each_other(cache):
    barrier = threading.Barrier(2, timeout=240)

    namespaces = {
        place: Namespace({"n": place}, place) for place in ("cuda:0", "cuda:1")
    }

    def work(place):
        def compute(indices):
            barrier.wait()
            yield indices, [np.ones((len(indices), 2))]

        [rows] = fetch(
            cache, [namespaces[place]], [key_of(0)], compute, None, place=place
        )
        fetched[place] = rows

    fetched = {}
    in_threads([lambda place=place: work(place) for place in namespaces])
    assert fetched.keys() == namespaces.keys()
    assert all((rows == 1).all() for rows in fetched.values())


def test_layers_of_one_network_are_computed_once_for_all(cache, watched):
    """Four want a layer each, which the first computes along with its own."""
    layers = {"a": 3, "b": 4, "c": 5, "d": 6}
    nets = [
        watched({name: width}, also=layers, work="net")
        for name, width in layers.items()
    ]
    in_threads([lambda each=each: each.check_fetch(cache, range(8)) for each in nets])
    assert sorted(sum((each.computed for each in nets), [])) == list(range(8))


# Two layers of one network in two scripts: only one of them is at work at a time.
LAYER = """
    import os, sys
    from skdeepfeat.cache import FeatureCache
    from pretend import Nets

    directory, layer = sys.argv[1:]

    class Alone(Nets):
        def batch(self, images, indices):
            os.close(os.open(f"{directory}/busy", os.O_CREAT | os.O_EXCL))
            found = super().batch(images, indices)
            os.remove(f"{directory}/busy")
            return found

    print("ready", flush=True)
    sys.stdin.readline()
    Alone({layer: 3}, work="net").check_fetch(FeatureCache(directory), range(400))
"""


def test_scripts_with_layers_of_one_network_take_turns(directory):
    directory.mkdir()
    scripts = [start(LAYER, directory, a, stdin=subprocess.PIPE) for a in "ab"]
    for script in scripts:
        assert script.stdout.readline() == "ready\n", script.stderr.read()
    for script in scripts:
        script.stdin.write("go\n")
        script.stdin.flush()
    for script in scripts:
        finish(script)


WORKER = """
    import json, sys
    from skdeepfeat.cache import FeatureCache
    from pretend import Nets

    directory, share = sys.argv[1], json.loads(sys.argv[2])
    nets = Nets({"a": 300})
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(nets.check_fetch(FeatureCache(directory), share)))
"""


def test_processes_starting_cold(directory):
    shares = overlapping(3)
    workers = [start(WORKER, directory, s, stdin=subprocess.PIPE) for s in shares]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n", worker.stderr.read()
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    computed = [image for worker in workers for image in json.loads(finish(worker))]
    assert sorted(computed) == sorted(set().union(*shares))
    cache = FeatureCache(directory)
    assert cache.check().ok
    assert cache.info().n_rows == len(computed)


def test_joblib_processes_share_one_object(cache):
    def fetch(cache, images):
        # Nothing of this file can be imported over there.
        import numpy as np

        from skdeepfeat.cache import Namespace

        computed = []

        def compute(indices):
            computed.extend(indices.tolist())
            yield indices, [np.ones((len(indices), 3))]

        keys = [bytes([image]) * 32 for image in images]
        with cache.open() as store:
            store.fetch([Namespace({}, "ones")], keys, compute, None)
        return computed

    computed = joblib.Parallel(n_jobs=2)(
        joblib.delayed(fetch)(cache, range(40)) for _ in range(6)
    )
    assert sorted(sum(computed, [])) == list(range(40))


VICTIM = """
    import sys, time
    from skdeepfeat.cache import FeatureCache
    from pretend import Nets

    class Slow(Nets):
        def batch(self, images, indices):
            time.sleep(0.05)
            found = super().batch(images, indices)
            print(*found[0], flush=True)
            return found

    Slow({"a": 300}).fetch(FeatureCache(sys.argv[1]), range(100_000))
"""


def test_kill_9_and_resume(cache, directory):
    victim = start(VICTIM, directory)
    while cache.info().n_rows < 50:
        time.sleep(0.05)
        assert victim.poll() is None
    # The lock that it holds must not outlive it: this one waits for it now.
    nets, waited = Nets({"a": 300}), []
    waiter = threading.Thread(
        target=lambda: waited.extend(nets.check_fetch(cache, range(4_000)))
    )
    waiter.start()
    time.sleep(0.3)
    assert waiter.is_alive() and not nets.computed
    victim.send_signal(signal.SIGKILL)
    output, _ = victim.communicate()
    waiter.join()
    begun = {int(number) for number in output.split()}
    stored = set(range(4_000)) - set(waited)
    assert stored <= begun
    # 4 rows in 0.05 s, 80 a second; a commit each second, and a slow machine.
    assert 50 <= len(stored) and len(begun) - len(stored) <= 200
    assert cache.check().ok
    assert nets.check_fetch(cache, range(4_000)) == []


def test_waiting_is_said_and_costs_no_time(cache, caplog):
    holding, go_on = threading.Event(), threading.Event()

    class Holder(Nets):
        def batch(self, images, indices):
            holding.set()
            assert go_on.wait(240)
            return super().batch(images, indices)

    first, second = Holder({"a": 3}, batch_size=10), Nets({"a": 3})
    waiter = threading.Thread(target=second.check_fetch, args=(cache, range(10)))
    thread = threading.Thread(target=first.check_fetch, args=(cache, range(10)))
    thread.start()
    assert holding.wait(240)

    def attempts():
        return [
            record.created
            for record in caplog.get_records("call")
            if record.name == "filelock"
            and record.thread == waiter.ident
            and "device" in (message := record.getMessage())
            and message.startswith("Attempting")
        ]

    caplog.set_level(logging.INFO, logger="skdeepfeat.cache")
    caplog.set_level(logging.DEBUG, logger="filelock")
    waiter.start()
    while len(attempts()) < 6:
        assert waiter.is_alive()
        time.sleep(0.01)
    assert "a, avg, float32" in caplog.text
    pauses = np.diff(attempts()[1:])  # the first attempt does not wait
    go_on.set()
    thread.join()
    waiter.join()
    assert second.computed == []
    assert pauses.min() > 0.9 * _POLL


def test_known_rows_are_read_while_others_are_computed(cache):
    Nets({"a": 3}).check_fetch(cache, range(5))
    inside = []

    class Reading(Nets):
        def batch(self, images, indices):
            other = Nets({"a": 3})
            inside.append(other.check_fetch(cache, range(5)))
            return super().batch(images, indices)

    Reading({"a": 3}).check_fetch(cache, range(10))
    assert inside and not any(inside)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_locks_are_given_back_after_an_interruption(cache, error):
    nets = Nets({"a": 3}, batch_size=1)

    def compute(indices):
        yield nets.batch(range(4), indices[:2])
        raise error

    keys = [key_of(image) for image in range(4)]
    with pytest.raises(error):
        fetch(cache, nets.namespaces, keys, compute, None)
    assert in_threads([lambda: nets.check_fetch(cache, range(4))]) == [[2, 3]]
