"""What a user's own network is known by: its tensors and its rows, nothing else."""

import dataclasses
import logging
import os
import random
import threading
import types
import weakref

import numpy as np
import pytest
import torch
from blake3 import blake3
from networks import fix_weights
from torch import nn

from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.probing import _fingerprint
from skdeepfeat.networks.probing._fingerprint import (
    digest_tensors,
    is_below_float32,
    probe_images,
)

CPU = torch.device("cpu")
HELPERS = types.SimpleNamespace(scale=lambda x: x * 1.0)
OFFSET = 0.0
# Collected while it is open, it would be a warning in whichever test runs then.
OPEN_FILE = open(os.devnull)  # noqa: SIM115
PROBE_DIGEST = "a6954153afc90966"


def activation(x):
    return x.relu()


class Scale:
    def __init__(self, factor=1.0):
        self.factor = factor

    def __call__(self, x):
        return x * self.factor


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.factor = 1.0
        fix_weights(self)

    def forward(self, x):
        x = HELPERS.scale(activation(self.conv(x)).mean((2, 3))) * self.factor
        return Scale()(x) + OFFSET + float(os.environ.get("NET_OFFSET", 0))


def fingerprint(network, size=16, **parameters):
    neck = resolve_neck(network, image_size=size, **parameters).identified(CPU)
    return neck.fingerprint


def change_helper(monkeypatch, network):
    monkeypatch.setitem(globals(), "activation", nn.functional.gelu)


def change_constant(monkeypatch, network):
    monkeypatch.setitem(globals(), "OFFSET", 0.01)


def change_other_modules_function(monkeypatch, network):
    monkeypatch.setattr(HELPERS, "scale", lambda x: x * 1.001)


def change_class(monkeypatch, network):
    class Other(Scale):
        def __call__(self, x):
            return x * 1.01

    monkeypatch.setitem(globals(), "Scale", Other)


def change_method_of_class(monkeypatch, network):
    monkeypatch.setattr(Net, "forward", lambda self, x: self.conv(x).amax((2, 3)))


def change_attribute(monkeypatch, network):
    network.factor = 1.001


def change_environment(monkeypatch, network):
    monkeypatch.setenv("NET_OFFSET", "0.5")


def add_hook(monkeypatch, network):
    network.conv.register_forward_hook(lambda module, args, out: out + 0.1)


def change_weight_that_no_row_shows(monkeypatch, network):
    with torch.no_grad():
        network.conv.weight[0, 0, 0, 0] += 1e-7


def change_buffer(monkeypatch, network):
    network.register_buffer("seen", torch.ones(1), persistent=False)


CHANGES = [
    change_helper, change_constant, change_other_modules_function, change_class,
    change_method_of_class, change_attribute, change_environment, add_hook,
    change_weight_that_no_row_shows, change_buffer,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_what_is_computed_is_noticed(change, monkeypatch):
    network = Net()
    before = fingerprint(network)
    assert before.same_as(fingerprint(network))
    change(monkeypatch, network)
    assert not before.same_as(fingerprint(network))


def test_a_hook_that_is_gone_is_forgotten():
    network = Net()
    before = fingerprint(network)
    network.conv.register_forward_hook(lambda module, args, out: out + 1).remove()
    assert before.same_as(fingerprint(network))


@dataclasses.dataclass(slots=True)
class Slots:
    value: int = 1


def with_attributes(name, *values):
    network = Net()
    for number, value in enumerate(values):
        setattr(network.conv, f"{name}{number}", value)
    return network


def made_in_a_function():
    import numpy
    import torch

    class Local(Net):
        def forward(self, x):
            return torch.relu(self.conv(x)).mean((2, 3)) * float(numpy.pi)

    return Local()


def with_module(wrap):
    network = Net()
    network.conv = wrap(network.conv)
    return network


def with_odd_buffers():
    network = Net()
    for name, tensor in {
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "complex": torch.ones(2, dtype=torch.complex64).conj(),
        "low": torch.ones(2, dtype=torch.bfloat16),
        "empty": torch.empty(0),
        "scalar": torch.tensor(1),
        "meta": torch.empty(2, device="meta"),
    }.items():
        network.register_buffer(name, tensor)
    return network


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        fix_weights(self)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x.mean((2, 3))))


class WithSlots(Net):
    __slots__ = ("scale",)

    def __init__(self):
        super().__init__()
        self.scale = [2.0]

    def forward(self, x):
        return super().forward(x) * self.scale[0]


class OnlyOwnAttributes(Net):
    def __getattr__(self, name):
        if name in ("conv", "factor") or name.startswith("_"):
            return super().__getattr__(name)
        raise KeyError(name)


class DrawsInVain(Net):
    def forward(self, x):
        torch.rand(())  # as transformers' LayerDrop does
        return super().forward(x)


class NoTensors(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))


class RefusesModes(Net):
    def train(self, mode=True):
        raise NotImplementedError("no modes")


class NaNOnFlatImages(nn.Module):
    def forward(self, x):
        return (x / (x.std((2, 3), keepdim=True) > 0.1)).mean(
            (2, 3)
        ) * torch.nan_to_num(x.amax((2, 3)), nan=0.0)


def exported():
    batch = ({0: torch.export.Dim.DYNAMIC},)
    images = torch.zeros(2, 3, 16, 16)
    return torch.export.export(Tied(), (images,), dynamic_shapes=batch).module()


NETWORKS = {
    "locks": lambda: with_attributes("lock", threading.Lock(), threading.RLock()),
    "loggers": lambda: with_attributes("log", logging.getLogger("x")),
    "weakrefs": lambda: with_attributes("ref", weakref.ref(Net)),
    "generators": lambda: with_attributes("g", torch.Generator(), iter("ab")),
    "iterators": lambda: with_attributes("g", (letter for letter in "ab")),
    "packages": lambda: with_attributes("package", torch, np, {"os": os}),
    "open files": lambda: with_attributes("file", OPEN_FILE),
    "slots": lambda: with_attributes("slots", Slots()),
    "made in a function": made_in_a_function,
    "exported": exported,
    "weight norm": lambda: with_module(nn.utils.parametrizations.weight_norm),
    "spectral norm": lambda: with_module(nn.utils.parametrizations.spectral_norm),
    "odd buffers": with_odd_buffers,
    "tied": Tied,
    "no tensors": NoTensors,
    "with slots": WithSlots,
    "own attributes": OnlyOwnAttributes,
    "draws in vain": DrawsInVain,
    "refuses modes": RefusesModes,
    "NaN": NaNOnFlatImages,
    "bfloat16": lambda: Tied().to(torch.bfloat16),
    "float64": lambda: Tied().double(),
}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore:Sparse CSR")
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_whatever_a_module_holds_it_is_recognized(make):
    network = make()
    first = fingerprint(network)
    assert first.is_stable
    assert first.same_as(fingerprint(network))
    if make is not NETWORKS["spectral norm"]:  # begins at random
        assert first.same_as(fingerprint(make()))


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")
@pytest.mark.parametrize("kind", ["script", "trace", "weight_norm"])
def test_older_ways_to_make_modules(kind):
    def make():
        if kind == "weight_norm":
            return with_module(nn.utils.weight_norm)
        if kind == "script":
            return torch.jit.script(Tied())
        return torch.jit.trace(Tied(), torch.zeros(2, 3, 16, 16))

    assert fingerprint(make()).same_as(fingerprint(make()))


@pytest.mark.parametrize(
    "forward",
    [
        lambda self, x: torch.dropout(self.conv(x).mean((2, 3)), 0.5, True),
        lambda self, x: torch.dropout(self.conv(x).mean((2, 3)), 0.002, True),
        lambda self, x: self.conv(x).mean((2, 3)) + torch.rand(1),
        lambda self, x: self.conv(x).mean((2, 3)) + float(np.random.rand()),
        lambda self, x: self.conv(x).mean((2, 3)) + random.random(),
        lambda self, x: self.conv(x - x.mean(0)).mean((2, 3)),
        lambda self, x: self.conv(x).mean((2, 3)).cumsum(0),
        lambda self, x: self.conv(x).mean((2, 3)).flip(0).cumsum(0).flip(0),
    ],
    ids=[
        "dropout",
        "little dropout",
        "torch",
        "numpy",
        "random",
        "batch statistics",
        "recurrence along the batch",
        "backward recurrence",
    ],
)
def test_rows_that_are_never_the_same_are_noticed(forward, monkeypatch):
    monkeypatch.setattr(Net, "forward", forward)
    neck = resolve_neck(Net(), image_size=16)
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    assert not neck.identified(CPU).fingerprint.is_stable
    assert torch.equal(states[0], torch.get_rng_state())
    np.testing.assert_equal(states[1], np.random.get_state())
    assert states[2] == random.getstate()


def test_a_generator_of_the_module_is_noticed(monkeypatch):
    """It draws one number for each batch, as stochastic depth does."""

    def forward(self, x):
        rows = self.conv(x).mean((2, 3))
        return rows if self.generator.random() < 0.9 else 2 * rows

    monkeypatch.setattr(Net, "forward", forward)
    network = Net()
    network.generator = np.random.default_rng(0)
    assert not fingerprint(network).is_stable


def test_only_the_wanted_layers_count():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    before = fingerprint(network, layer="0")
    network[1] = nn.GELU()
    assert before.same_as(fingerprint(network, layer="0"))
    assert not before.same_as(fingerprint(network))


def test_rows_agree_to_the_tolerance_and_no_further():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 50)).astype(np.float32)
    rows[2] = 1e-12  # what is nearly nothing may be anything
    rows[3, :2] = np.nan, np.inf
    one = dataclasses.replace(fingerprint(NoTensors()), rows=(rows,))
    assert one.agrees(rows, rows.copy())
    assert one.agrees(rows * np.float32(1 + 1e-5), rows)
    assert not one.agrees(rows * np.float32(1 + 1e-3), rows)
    other = rows.copy()
    other[3, 0] = 1
    assert not one.agrees(other, rows)
    other = rows.copy()
    other[2] *= -1
    assert one.agrees(other, rows)
    assert not one.agrees(rows[:, :49], rows)


def test_features_of_another_scale_count_as_much():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(8, 50)).astype(np.float32)
    rows[:, 0] *= 1e4
    one = dataclasses.replace(fingerprint(NoTensors()), rows=(rows,))
    noise = (1 + 1e-5 * rng.normal(size=rows.shape)).astype(np.float32)
    near, other = rows * noise, rows.copy()
    other[:, 1:] *= 1.5
    assert one.agrees(near, rows)
    assert not one.agrees(other, rows)
    assert one.agrees_with_summary(dataclasses.replace(one, rows=(near,)).summary())
    other = dataclasses.replace(one, rows=(other,))
    assert not one.agrees_with_summary(other.summary())


@pytest.mark.parametrize("n_threads", [1, 2])
def test_rows_do_not_depend_on_threads_beyond_the_tolerance(n_threads):
    before = torch.get_num_threads()
    first = fingerprint(Net(), size=64)
    torch.set_num_threads(n_threads)
    try:
        assert first.same_as(fingerprint(Net(), size=64))
    finally:
        torch.set_num_threads(before)


def test_a_summary_recognizes_as_the_rows_do(monkeypatch):
    one = fingerprint(Net())
    assert one.agrees_with_summary(one.summary())
    change_other_modules_function(monkeypatch, None)
    assert not fingerprint(Net()).agrees_with_summary(one.summary())
    for damaged in (None, [], ["zz"], ["00"], [1]):
        assert not one.agrees_with_summary(damaged)


@pytest.mark.parametrize("n_features", [1, 500, 50_000])
def test_a_summary_notices_one_feature(n_features):
    rows = np.random.default_rng(0).random((8, n_features)).astype(np.float32) + 1
    one = dataclasses.replace(fingerprint(NoTensors()), rows=(rows, rows))
    assert sum(map(len, one.summary())) <= 2**17
    for changed in (slice(None), 5):  # on all images, on one
        other = rows.copy()
        other[changed, n_features // 2] *= 1.002
        other = dataclasses.replace(one, rows=(rows, other))
        assert not other.agrees_with_summary(one.summary())
    near = rows * np.float32(1 + 1e-5)
    rows[1:3, 0] = near[1:3, 0] = np.inf, -np.inf
    near = dataclasses.replace(one, rows=(rows, near))
    assert near.agrees_with_summary(one.summary())


def test_the_images_are_the_same_everywhere():
    # blake3 of the pixels, as they were when the version was set.
    images = probe_images((32, 48))
    assert images.shape == (8, 32, 48, 3)
    assert _fingerprint._IMAGES_VERSION == 1
    assert PROBE_DIGEST == blake3(images.tobytes()).hexdigest()[:16]
    for crop in [(1, 1), (2, 3), (7, 300)]:
        assert probe_images(crop).shape[1:3] == crop


def test_where_and_how_tensors_lie_does_not_count():
    network = Net()
    before = digest_tensors(network)
    network.to(memory_format=torch.channels_last).train().requires_grad_(False)
    assert digest_tensors(network) == before
    assert digest_tensors(network.double()) != before


def test_lazy_parameters_have_a_precision():
    assert not is_below_float32(nn.Sequential(nn.LazyConv2d(4, 3)))
