"""torch or a compiled network: what is expected to be done first."""

import logging
import math

import numpy as np
import pytest
import torch
from networks import NormNet

from skdeepfeat.cache import FeatureCache
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.running import _compiled_networks, _measured_network
from skdeepfeat.networks.running._compiled_networks import CompiledForm
from skdeepfeat.networks.running._kept_networks import key_of_network
from skdeepfeat.networks.running._measured_network import Costs, key_of_costs

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_compiled():
    _compiled_networks._compiled.clear()
    yield
    _compiled_networks._compiled.clear()


@pytest.fixture(autouse=True)
def no_choice_by_speed():
    """Here the choice is what is tested, with given times."""


@pytest.fixture
def files(tmp_path):
    (tmp_path / "cache").mkdir()
    return FeatureCache(tmp_path / "cache").open().converted


@pytest.fixture
def cheap_conversion(monkeypatch):
    """Let every conversion look as if it took no time."""
    for name in ("_SECONDS", "_SECONDS_PER_MODULE", "_N_PASSES", "_N_IDENTIFYING"):
        monkeypatch.setattr(_measured_network, name, 0)


def runtimes_of(neck, pixels, n_images=None, files=None):
    """Return rows, and whether the network was compiled in the end."""
    n_images = n_images or len(pixels)
    with neck.loaded(CPU, "float32", "auto", n_images, files) as run:
        [rows] = run(pixels)
    return rows, bool(_compiled_networks._compiled)


def test_costs_say_what_is_cheaper():
    costs = Costs(torch_image=0.1)
    # 100 modules: 0.15 + 0.55 + 0.8 s, and 0.1 * (1 - 1 / 1.4) won back by an image.
    assert not costs.winning(52, 100, 0)
    assert costs.winning(53, 100, 0)
    assert not costs.winning(60, 100, 10)
    costs.compiled_image = 0.05  # measured
    assert costs.winning(31, 100, 0)
    assert not costs.prefer_torch(1, is_loaded=True)  # the start is not known
    costs.compiled_start, costs.torch_start = 0.4, 0.3
    assert costs.prefer_torch(7, is_loaded=True)
    assert not costs.prefer_torch(9, is_loaded=True)
    assert costs.prefer_torch(1, is_loaded=False)
    assert not costs.prefer_torch(3, is_loaded=False)
    # One that was slow while the machine was busy is tried again.
    costs.compiled_image = 1.0
    assert not costs.prefer_torch(100, is_loaded=True)


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"torch_start": "a"}', b"\xff"])
def test_costs_are_kept_and_anything_else_is_unknown(data):
    costs = Costs(0.1, 0.2, 0.3, math.nan)
    assert repr(Costs.read(costs.dump())) == repr(costs)
    assert costs.say_more_than(Costs())
    assert not costs.say_more_than(costs)
    assert repr(Costs.read(data)) == repr(Costs())


def test_few_images_stay_in_torch(batch):
    neck = resolve_neck("resnet18", weights="random", image_size=32)
    pixels = batch(5, 32)
    rows, is_compiled = runtimes_of(neck, pixels)
    assert not is_compiled
    with neck.loaded(CPU, runtime="torch", n_images=5) as run:
        np.testing.assert_array_equal(rows, run(pixels)[0])


@pytest.mark.parametrize("network", ["resnet18", NormNet])
def test_it_changes_in_the_middle_of_a_batch(network, batch, cheap_conversion, files):
    if network == "resnet18":
        neck = resolve_neck(network, weights="random", image_size=112)
    else:
        neck = resolve_neck(network(), image_size=112, layer="output")
    pixels = batch(34, 112)  # 32 are tried
    rows, is_compiled = runtimes_of(neck, pixels, 10**6, files)
    assert is_compiled
    with neck.loaded(CPU, runtime="torch") as run:
        [wanted] = run(pixels)
    np.testing.assert_allclose(rows, wanted, atol=1e-4 * np.abs(wanted).max())


def test_what_was_measured_decides_in_the_next_process(batch, files, caplog):
    neck = resolve_neck("resnet18", weights="random", image_size=32)
    pixels = batch(2, 32)
    with neck.loaded(CPU, runtime="openvino", files=files) as run:
        run(pixels)

    def seen(n_images):
        _compiled_networks._compiled.clear()
        caplog.clear()
        with caplog.at_level(logging.INFO, "skdeepfeat"):
            runtimes_of(neck, pixels, n_images, files)
        return "using the stored compiled network" in caplog.text

    assert seen(2)  # nothing is known that speaks for torch
    key = key_of_costs(key_of_network(CompiledForm("openvino", neck, CPU, "float32")))
    costs = Costs.read(files.read(key))
    assert costs.compiled_start > 0 and costs.compiled_image > 0
    costs = Costs(0.1, 0.002, 1.0, 0.001)
    files.write(key, costs.dump())
    assert not seen(2)
    assert seen(10**6)
