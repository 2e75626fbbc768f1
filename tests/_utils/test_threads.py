"""The owner of the work uses all cores, in real joblib workers with real shares."""

import json
import os
import subprocess
import sys
import threading

import joblib
import pytest
import torch

from skdeepfeat._utils._threads import all_cores, others_wait

CPU = torch.device("cpu")

# What torch says in a worker: before, inside, of a new thread inside, nested, after an
# exception; where nobody waits; and of two threads that overlap.
IN_WORKERS = """
import json, sys, threading
import joblib, torch
from skdeepfeat._utils._threads import all_cores, others_wait

def elsewhere():
    numbers = []
    thread = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return numbers[0]

def overlap():
    inside, leave, numbers = threading.Event(), threading.Event(), []
    def second():
        with others_wait(), all_cores(torch.device("cpu")):
            inside.set()
            leave.wait()
            numbers.append(torch.get_num_threads())
        numbers.append(torch.get_num_threads())
    with others_wait(), all_cores(torch.device("cpu")):
        thread = threading.Thread(target=second)
        thread.start()
        inside.wait()
    numbers.append(torch.get_num_threads())
    leave.set()
    thread.join()
    return [*numbers, torch.get_num_threads(), elsewhere()]

def look(chosen):
    if chosen:
        torch.set_num_threads(chosen)
    cpu = torch.device("cpu")
    seen = {"before": torch.get_num_threads()}
    try:
        with others_wait(), all_cores(cpu):
            seen["inside"], seen["elsewhere"] = torch.get_num_threads(), elsewhere()
            with all_cores(cpu):
                pass
            seen["after nested"] = torch.get_num_threads()
            raise KeyError
    except KeyError:
        seen["after"], seen["elsewhere after"] = torch.get_num_threads(), elsewhere()
    with all_cores(cpu):
        seen["side by side"] = torch.get_num_threads()
    with others_wait(), all_cores(torch.device("meta")):
        seen["other device"] = torch.get_num_threads()
    seen["overlap"] = overlap()
    return seen

chosen, n_threads = int(sys.argv[1]), int(sys.argv[2]) or None
with joblib.parallel_config("loky", n_jobs=4, inner_max_num_threads=n_threads):
    [seen] = joblib.Parallel()([joblib.delayed(look)(chosen)])
print(json.dumps(seen))
"""


def seen_in_a_worker(chosen=0, n_threads=0, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    result = subprocess.run(
        [sys.executable, "-c", IN_WORKERS, str(chosen), str(n_threads)],
        env={**kept, "LOKY_MAX_CPU_COUNT": "4", **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def n_cores():
    return min(joblib.cpu_count(), 4)


@pytest.mark.slow
def test_the_owner_takes_all_cores_and_gives_them_back(n_cores):
    if n_cores == 1:
        pytest.skip("there is nothing to take on one core")
    assert seen_in_a_worker() == {
        "before": 1,
        "inside": n_cores,
        "elsewhere": 1,
        "after nested": n_cores,
        "after": 1,
        "elsewhere after": 1,
        "side by side": 1,
        "other device": 1,
        # the second inside alone and after, the first after it, and a third
        "overlap": [1, n_cores, 1, 1, 1],
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [{"chosen": 3}, {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "3"}],
    ids=["torch", "the pool's number", "another number"],
)
def test_what_the_user_has_chosen_stays(how):
    seen = seen_in_a_worker(**how)
    assert seen["before"] == seen["inside"] == seen["after"]


def test_outside_of_pools_nothing_changes():
    before = torch.get_num_threads()
    seen = []

    def work():
        with others_wait(), all_cores(CPU):
            seen.append(torch.get_num_threads())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work()
    assert seen == [before] * 3
    assert torch.get_num_threads() == before
