"""What is kept of compiled networks, whatever compiles them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skdeepfeat.networks import _neck, resolve_neck
from skdeepfeat.networks.running import _compiled_networks, _runtimes

CPU = torch.device("cpu")


class Pretending:
    """A runtime that counts, and computes in torch."""

    TITLE = "Pretending"

    def __init__(self, error=None):
        self.n_compiled = 0
        self.error = error

    def check(self, device, precision):
        pass

    def compile_network(self, module, pixels, device, precision):
        self.n_compiled += 1
        if self.error is not None:
            raise self.error

        def compute(pixels):
            with torch.inference_mode():
                return [rows.numpy() for rows in module(pixels)]

        return lambda: compute


@pytest.fixture(autouse=True)
def nothing_compiled():
    _compiled_networks._compiled.clear()
    yield
    _compiled_networks._compiled.clear()


@pytest.fixture
def pretend(monkeypatch):
    def use(error=None):
        runtime = Pretending(error)
        for module in (_neck, _compiled_networks, _runtimes):
            monkeypatch.setattr(module, "load_runtime", lambda name: runtime)
        return runtime

    return use


def rows_of(neck, pixels, runtime):
    with neck.loaded(CPU, runtime=runtime) as run:
        return run(pixels)


def small():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 4)
        return nn.Sequential(*layers)


def test_what_is_kept_does_not_follow_a_network_that_is_trained_on(batch, pretend):
    pretend()
    network, pixels = small(), batch(2, 32)
    before = copy.deepcopy(network)
    rows_of(resolve_neck(network, image_size=32), pixels, "compile")
    for weight in network.parameters():
        weight.data.add_(1)  # in place, as an optimiser does
    # The same weights as those that were compiled, in another module.
    [found] = rows_of(resolve_neck(before, image_size=32), pixels, "compile")
    [wanted] = rows_of(resolve_neck(before, image_size=32), pixels, "torch")
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_two_networks_are_kept_for_each_device(batch, pretend):
    compiler, pixels = pretend(), batch(2, 32)
    first, second, third = (
        resolve_neck(model, weights="random", image_size=32)
        for model in ("resnet18", "mobilenet_v3_small", "squeezenet1_1")
    )

    def run(neck, *devices):
        for device in devices:
            with neck.loaded(torch.device(device), runtime="compile") as compute:
                compute(pixels)

    run(first, "cpu", "cpu:0", "cpu:1", "cpu", "cpu:0", "cpu:1")
    assert compiler.n_compiled == 3
    run(second, "cpu")
    run(first, "cpu", "cpu:0", "cpu:1")
    assert compiler.n_compiled == 4
    run(third, "cpu")
    run(second, "cpu")
    assert compiler.n_compiled == 6


@pytest.mark.parametrize(
    ("error", "n_compiled"),
    [(torch.OutOfMemoryError("out of memory"), 2), (ValueError("an operation"), 1)],
)
def test_a_failure_is_remembered_unless_it_may_pass(error, n_compiled, batch, pretend):
    compiler = pretend(error)
    neck = resolve_neck("resnet18", weights="random", image_size=32)
    for _ in range(2):
        with pytest.raises(ValueError, match="Pretending cannot run"):
            rows_of(neck, batch(2, 32), "compile")
    assert compiler.n_compiled == n_compiled
