"""Two processes that train together are one process that trains alone."""

import json
import os
import pathlib
import socket
import textwrap

import pytest
import safetensors.torch
import torch
from torch import nn

from benchmarks._forks import start_python
from skdeepfeat.training import WeightAverage
from skdeepfeat.training._processes import Processes

HERE = pathlib.Path(__file__).parent

TRAIN = textwrap.dedent(
    """
    import json, os, sys
    sys.path.insert(0, sys.argv[1])
    import numpy as np, safetensors.torch, torch
    import torch.distributed as dist
    import conftest as c
    from skdeepfeat.training._state import copy_state

    torch.set_num_threads(1)
    result, rank = sys.argv[2], int(os.environ.get("RANK", 0))
    histories = {}
    for name, settings in {
        "plain": {"max_grad_norm": 0.5},
        "sgd": {"optimizer": "sgd"},
        "average": {"decay": 0.8},
        "tiny batches": {"batch_size": 1, "n_epochs": 1},
        "batch norm": {"decay": 0.8},
        "early": {"n_epochs": 9, "n_iter_no_change": 2},
        "mixup": {"mixup": 0.4},
    }.items():
        # Each process begins elsewhere; the first one's weights count.
        net = c.make_net(seed=rank, batch_norm=name == "batch norm")
        data = c.make_pixels(5 if name == "tiny batches" else 21)
        run = c.make_run(net, schedule="one_cycle", seed=3, **settings)
        validate = None
        if name == "early":
            # They disagree; the first one decides.
            sign = -1.0 if rank == 0 else 1.0
            validate = lambda model: (0.0, sign * run.epoch)
        run.fit(data, validate)
        if name == "batch norm":
            assert all(b.isfinite().all() for b in net.buffers())
        state = copy_state(net)
        safetensors.torch.save_file(state, f"{result}-{name}-{rank}")
        histories[name] = [h["train_loss"] for h in run.history]
    if rank == 0:
        with open(f"{result}.json", "w") as file:
            json.dump(histories, file)
    if dist.is_initialized():
        dist.destroy_process_group()
    """
)
NAMES = ["plain", "sgd", "average", "tiny batches", "early"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the folder with what one process, and two, arrived at."""
    folder = tmp_path_factory.mktemp("processes")
    script = folder / "train.py"
    script.write_text(TRAIN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # What torchrun sets; tests/fine_tuning/test_processes.py starts it itself.
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2}
    started = [(folder / "one", {})]
    for rank in range(2):
        started.append((folder / "two", {**shared, "RANK": rank, "LOCAL_RANK": rank}))
    processes = [
        start_python(
            [script, HERE, result],
            env={**os.environ, **{name: str(value) for name, value in more.items()}},
        )
        for result, more in started
    ]
    try:
        for process in processes:
            _, errors = process.communicate(200)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()
    histories = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in ("one", "two")
    }

    def load(n_processes, name, rank=0):
        return safetensors.torch.load_file(folder / f"{n_processes}-{name}-{rank}")

    return load, histories


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_arrive_where_one_does(results, assert_same, name):
    load, histories = results
    assert histories["two"][name] == pytest.approx(histories["one"][name], abs=1e-3)
    assert_same(load("two", name), load("one", name), tolerance=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "batch norm", "mixup"])
def test_both_have_the_same_weights_and_buffers(results, assert_same, name):
    load, _ = results
    assert_same(load("two", name, 0), load("two", name, 1))


@pytest.mark.slow
def test_running_statistics_are_averaged(results):
    load, _ = results
    one, two = load("one", "batch norm"), load("two", "batch norm")
    # Each sees a half of every batch, so the means of means are those of the whole in
    # the first step; later the weights differ a little.
    torch.testing.assert_close(
        two["2.running_mean"], one["2.running_mean"], atol=0.02, rtol=0.1
    )
    assert torch.equal(two["2.num_batches_tracked"], one["2.num_batches_tracked"])


@pytest.mark.slow
def test_the_first_process_decides_when_to_stop(results):
    _, histories = results
    assert len(histories["two"]["early"]) == len(histories["one"]["early"]) == 3


# -- One process alone


def test_alone(make_net, weights_of, assert_same, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes(torch.device("cpu"))
    assert (alone.rank, alone.size) == (0, 1)
    assert alone.sum(1.5) == 1.5
    assert alone.same_for_all("x") == "x"
    assert list(range(7))[alone.part(7)] == list(range(7))
    net = make_net(batch_norm=True)
    before = weights_of(net)
    alone.copy_from_first(net)
    alone.copy_from_first(WeightAverage(net, 0.9))
    alone.add_gradients(list(net.parameters()))
    alone.average(net.buffers())
    assert_same(weights_of(net), before)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_shares_are_disjoint_and_complete():
    shares = []
    for rank in range(3):
        one = Processes(torch.device("cpu"))
        one.rank, one.size = rank, 3
        shares.append(list(range(8))[one.part(8)])
    assert sorted(sum(shares, [])) == list(range(8))
    assert {len(share) for share in shares} == {2, 3}


@pytest.mark.parametrize(
    ("device", "local_rank", "wanted"),
    [
        ("auto", "2", "cuda:2"),
        ("cuda", "2", "cuda:2"),
        (torch.device("cuda"), "2", "cuda:2"),
        ("cuda:1", "2", "cuda:1"),
        ("cpu", "2", "cpu"),
        ("cuda", None, "cuda:0"),
    ],
)
def test_each_process_has_a_device_of_its_own(monkeypatch, device, local_rank, wanted):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert Processes.own_device(device) == torch.device(wanted)


def test_reduction_puts_every_tensor_back_in_its_place(monkeypatch):
    """Also those that lie in memory in another order."""
    one = Processes(torch.device("cpu"))
    one.size = 2
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(2))
    weights = [
        nn.Parameter(torch.rand(4, 3, 2, 2).to(memory_format=torch.channels_last)),
        nn.Parameter(torch.rand(3, 5).T),
        nn.Parameter(torch.rand(())),
    ]
    wanted = []
    for weight in weights:
        weight.grad = torch.rand_like(weight)
        wanted.append(2 * weight.grad)
    frozen, idle = nn.Parameter(torch.rand(2), False), nn.Parameter(torch.rand(2))
    one.add_gradients([*weights, frozen, idle])
    for weight, gradient in zip(weights, wanted, strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    assert frozen.grad is None
    assert torch.equal(idle.grad, torch.zeros(2))
