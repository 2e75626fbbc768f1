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

from skdeepfeat.cache import FeatureCache
from tests.cache.pretend import Nets, finish, key_of, start


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


def test_different_networks_do_not_wait_for_each_other(cache):
    """Each waits for the other to be at work, which a common lock would forbid."""
    barrier = threading.Barrier(2, timeout=30)

    class Meeting(Nets):
        def batch(self, images, indices):
            barrier.wait()
            return super().batch(images, indices)

    nets = [Meeting({"a": 3}), Meeting({"b": 3})]
    in_threads([lambda each=each: each.check_fetch(cache, range(8)) for each in nets])


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
        cache.fetch([Namespace({}, "ones")], keys, compute, None)
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
    waiter.join(60)
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
            assert go_on.wait(30)
            return super().batch(images, indices)

    first, second = Holder({"a": 3}, batch_size=10), Nets({"a": 3})
    thread = threading.Thread(target=first.check_fetch, args=(cache, range(10)))
    thread.start()
    assert holding.wait(30)
    used = []

    def wait():
        before = time.thread_time()
        second.check_fetch(cache, range(10))
        used.append(time.thread_time() - before)

    with caplog.at_level(logging.INFO, logger="skdeepfeat.cache"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(1.0)
        go_on.set()
        thread.join()
        waiter.join()
    assert second.computed == []
    assert "a, avg, float32" in caplog.text
    assert used[0] < 0.5


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
        cache.fetch(nets.namespaces, keys, compute, None)
    assert in_threads([lambda: nets.check_fetch(cache, range(4))]) == [[2, 3]]
