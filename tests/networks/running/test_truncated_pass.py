"""Truncation, batches, precision, memory, and several threads."""

import dataclasses
import gc
import logging
import threading
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from skdeepfeat.exceptions import OutOfMemoryError
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.running import _loaded_networks

CPU = torch.device("cpu")


def rows_of(neck, pixels, precision="float32"):
    with neck.loaded(CPU, precision) as run:
        return run(pixels)


class Steps(nn.Module):
    """Counts how often each of its parts runs; `ran` is shared by all copies."""

    ran = []

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(5))
        self.shared = nn.Hardtanh(-1, 1)

    def forward(self, x):
        for i, part in enumerate(self.parts):
            self.ran.append(i)
            x = self.shared(part(x)) * (i + 1)
        return x


@pytest.fixture
def steps():
    Steps.ran.clear()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Steps()


@pytest.mark.parametrize("model", ["resnet18", "steps"])
def test_nobody_holds_the_network_when_memory_is_given_back(model, steps, monkeypatch):
    lent, left = [], []

    def free(device, *, collects=True):
        left.extend(one() for one in lent)

    monkeypatch.setattr(_loaded_networks, "free_device_memory", free)
    options = (
        {"model": steps} if model == "steps" else {"model": model, "weights": "random"}
    )
    neck = resolve_neck(**options, image_size=32)
    neck.outputs  # noqa: B018 - looking at the layers borrows it, too
    left.clear()
    with neck.loaded(CPU) as run:
        lent.append(weakref.ref(run._network.network))
        run(np.zeros((2, 32, 32, 3), np.uint8))
    assert left == [None]


@pytest.mark.parametrize(
    ("layer", "n_parts"),
    [
        ("parts.0", 1),
        ("parts.2", 3),
        (["parts.2", "parts.1"], 3),
        ("shared", 5),
        (["shared", "parts.0"], 5),
        ("output", 5),
    ],
)
def test_nothing_runs_behind_the_last_wanted_layer(layer, n_parts, steps, batch):
    neck = resolve_neck(steps, layer=layer, image_size=16)
    Steps.ran.clear()
    rows_of(neck, batch(2, 16))
    assert Steps.ran == list(range(n_parts))


def test_a_module_used_several_times_counts_where_it_is_used_last(steps, batch):
    neck = resolve_neck(steps, layer=["shared", "output"], image_size=16)
    shared, output = rows_of(neck, batch(2, 16))
    assert neck.outputs[0].source.n_calls == 5
    np.testing.assert_allclose(shared * 5, output, rtol=1e-5)


def test_what_lies_behind_the_wanted_layer_does_not_run(batch):
    """Operations are counted; benchmarks/truncation.py prints the times."""
    pixels = batch(2, 64)

    def operations(layer):
        neck = resolve_neck("resnet50", weights="random", layer=layer, image_size=64)
        with neck.loaded(CPU) as run, FlopCounterMode(display=False) as counter:
            run(pixels)
        return counter.get_total_flops()

    # layer1 is a fifth of the operations, layer3 four fifths.
    whole = operations("output")
    assert 0.1 * whole < operations("layer1") < 0.3 * whole
    assert 0.7 * whole < operations("layer3") < 0.9 * whole
    assert 0.99 * whole < operations("neck") < whole


@pytest.mark.parametrize("model", ["efficientnet_lite0", "resnet18", "test_vit"])
def test_a_row_does_not_depend_on_its_neighbours(model, batch):
    weights = "default" if model == "efficientnet_lite0" else "random"
    layers = [None, -1, 0]
    size = None if model == "test_vit" else 64
    neck = resolve_neck(model, weights=weights, layer=layers, image_size=size)
    pixels = batch(7, *neck.preprocessing.crop)
    with neck.loaded(CPU) as run:
        together = run(pixels)
        singly = [run(pixels[i : i + 1]) for i in range(7)]
        backwards = run(pixels[::-1].copy())
        in_pairs = [run(pixels[i : i + 2]) for i in range(0, 7, 2)]
    for k, rows in enumerate(together):
        scale = np.abs(rows).max()
        for other in (
            np.concatenate([part[k] for part in singly]),
            np.concatenate([part[k] for part in in_pairs]),
            backwards[k][::-1],
        ):
            assert np.abs(rows - other).max() / scale < 1e-5


def test_tensors_and_empty_batches(batch):
    neck = resolve_neck("resnet18", weights="random", layer=[None, 1], image_size=32)
    pixels = batch(3, 32)
    with neck.loaded(CPU) as run:
        rows = run(pixels)
        again = run(torch.from_numpy(pixels))
        empty = run(pixels[:0])
    for one, other in zip(rows, again, strict=True):
        assert np.array_equal(one, other)
        assert one.flags.c_contiguous and one.flags.owndata
    assert [part.shape for part in empty] == [(0, 512), (0, 64)]
    assert not np.array_equal(pixels, batch(3, 32, seed=1))
    with pytest.raises(RuntimeError, match="given back"):
        run(pixels)


def test_the_users_pixels_are_not_changed(batch):
    neck = resolve_neck("resnet18", weights="random", image_size=32)
    pixels = batch(3, 32)
    before = pixels.copy()
    rows_of(neck, pixels)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("bfloat16", 0.12), ("float16", 0.03)]
)
def test_half_precision_is_near(precision, tolerance, batch):
    neck = resolve_neck(layer=[None, -1], image_size=64)
    pixels = batch(2, 64)
    full = rows_of(neck, pixels)
    for one, other in zip(full, rows_of(neck, pixels, precision), strict=True):
        assert other.dtype == np.float32
        error = np.abs(one - other).max() / np.abs(one).max()
        assert 0 < error < tolerance


class Greedy(nn.Module):
    """Needs more memory than there is for more than `limit` images."""

    limit = 3
    sizes = []
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        if x.device.type != "meta":
            self.sizes.append(len(x))
            if len(x) > self.limit:
                raise self.error
        return self.convolution(x).mean((2, 3))


@pytest.fixture
def greedy(monkeypatch):
    monkeypatch.setattr(Greedy, "sizes", [])
    return Greedy()


@pytest.mark.parametrize(
    "error",
    [
        Greedy.error,
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    ],
    ids=["cuda", "host", "cpu"],
)
def test_out_of_memory_halves_the_batch(error, greedy, batch, monkeypatch, caplog):
    monkeypatch.setattr(Greedy, "error", error)
    neck = resolve_neck(greedy, image_size=8)
    pixels = batch(11, 8)
    with caplog.at_level(logging.WARNING, "skdeepfeat"), neck.loaded(CPU) as run:
        (rows,) = run(pixels)
        assert Greedy.sizes == [11, 5, 2, 2, 2, 2, 2, 1]
        (again,) = run(pixels)
    assert Greedy.sizes[8:] == [2, 2, 2, 2, 2, 1]
    assert len(caplog.records) == 1
    monkeypatch.setattr(Greedy, "limit", 100)
    (wanted,) = rows_of(neck, pixels)
    np.testing.assert_allclose(rows, wanted, rtol=1e-5)
    np.testing.assert_allclose(again, wanted, rtol=1e-5)


def test_not_even_one_image_fits(greedy, batch, monkeypatch):
    monkeypatch.setattr(Greedy, "limit", 0)
    neck = resolve_neck(greedy, image_size=8)
    with pytest.raises(OutOfMemoryError, match="one image of 8 x 8 .*device='cpu'"):
        rows_of(neck, batch(4, 8))


def test_other_errors_pass(greedy, batch, monkeypatch):
    monkeypatch.setattr(Greedy, "error", RuntimeError("shapes do not match"))
    neck = resolve_neck(greedy, image_size=8)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        rows_of(neck, batch(4, 8))
    assert Greedy.sizes == [4]


def test_a_forward_that_changes_its_way_is_reported(batch):
    class Fickle(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 3, 1)
            self.two = nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.one(x) if len(x) == 3 else self.two(x)

    neck = resolve_neck(Fickle(), layer="one", image_size=8)
    with pytest.raises(RuntimeError, match=r"\['one'\] of Fickle ran when"):
        rows_of(neck, batch(2, 8))


def test_suggested_batch_size():
    small = resolve_neck(image_size=32)
    assert resolve_neck().suggested_batch_size(CPU) == 8
    assert resolve_neck().suggested_batch_size(CPU, "openvino") == 32
    assert small.suggested_batch_size(CPU) == 392
    assert small.suggested_batch_size(CPU, "openvino") == 512
    assert resolve_neck("resnet18", image_size=3000).suggested_batch_size(CPU) == 1
    assert resolve_neck().suggested_batch_size(torch.device("cuda")) == 128


def count_loads(monkeypatch):
    loads = []
    load = _loaded_networks._load

    def counted(spec):
        loads.append(spec.name)
        return load(spec)

    monkeypatch.setattr(_loaded_networks, "_load", counted)
    return loads


def test_two_networks_stay_in_memory(monkeypatch, batch):
    loads = count_loads(monkeypatch)
    pixels = batch(1, 32)
    first, second, third = (
        resolve_neck(name, weights="random", image_size=32)
        for name in ("squeezenet1_1", "shufflenet_v2_x0_5", "mnasnet0_5")
    )
    for neck in (first, second, first, second):
        rows_of(neck, pixels)
    other_layer = resolve_neck(
        "squeezenet1_1", weights="random", layer=1, image_size=32
    )
    rows_of(other_layer, pixels)
    assert loads == [first.spec.name, second.spec.name]
    rows_of(third, pixels)
    rows_of(first, pixels)
    assert loads == [first.spec.name, second.spec.name, third.spec.name]
    rows_of(second, pixels)
    assert loads[3:] == [second.spec.name]


def test_nothing_is_loaded_before_it_is_needed(monkeypatch):
    loads = count_loads(monkeypatch)
    neck = resolve_neck("squeezenet1_1", weights="random")
    neck.n_features()
    neck.descriptions("float32", None)
    assert loads == []
    with neck.loaded(CPU):
        assert len(loads) == 1


@pytest.mark.slow
def test_threads_share_one_network(monkeypatch, batch):
    loads = count_loads(monkeypatch)
    pixels = batch(4, 64)
    layers = [["layer1"], ["layer2", "neck"], ["output", 1], [None]] * 2
    necks = [
        resolve_neck("resnet18", weights="random", layer=layer, image_size=64)
        for layer in layers
    ]
    found, errors = [None] * len(necks), []
    barrier = threading.Barrier(len(necks))

    def work(i):
        try:
            barrier.wait()
            for _ in range(2):
                found[i] = rows_of(necks[i], pixels)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(necks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(loads) == 1
    for neck, rows in zip(necks, found, strict=True):
        for one, other in zip(rows, rows_of(neck, pixels), strict=True):
            scale = np.abs(other).max()
            assert np.abs(one - other).max() / scale < 1e-5


def test_threads_may_share_one_runner(batch):
    neck = resolve_neck(
        "resnet18", weights="random", layer=["layer1", None], image_size=64
    )
    batches = [batch(2, 64, seed=i) for i in range(6)]
    found = [None] * 6
    with neck.loaded(CPU) as run:
        wanted = [run(one) for one in batches]

        def work(i):
            found[i] = run(batches[i])

        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one[1], other[1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_device_holds_weights_only_while_they_are_used():
    # The meta device stands in for an accelerator: it has its own copies, too.
    neck = resolve_neck("squeezenet1_1", weights="random", image_size=64)
    device = torch.device("meta")

    def on_device():
        gc.collect()
        return sum(
            type(thing) is nn.Parameter and thing.device == device
            for thing in gc.get_objects()
        )

    before = on_device()
    with neck.loaded(device) as one, neck.loaded(device) as two:
        n_parameters = len(list(one._network.network.parameters()))
        assert on_device() == before + n_parameters
        del two
    assert on_device() == before
    with neck.loaded(CPU) as run:
        assert next(run._network.network.parameters()).device == CPU


def test_the_store_is_keyed_by_what_is_built(batch):
    pixels = batch(1, 75)
    with_weights = resolve_neck("inception_v3", weights="random", image_size=75)
    spec = with_weights.spec
    options = {**spec.architecture, "transform_input": True}
    other = dataclasses.replace(spec, architecture=options)
    assert _loaded_networks._entry_of(spec) is _loaded_networks._entry_of(spec)
    assert _loaded_networks._entry_of(spec) is not _loaded_networks._entry_of(other)
    assert np.isfinite(rows_of(with_weights, pixels)[0]).all()
