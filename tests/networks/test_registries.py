"""Each name of a choice has its implementation, and a new one takes two files."""

import itertools

import numpy as np
import pytest
import torch

from skdeepfeat._utils import _choices
from skdeepfeat.networks import list_models, resolve_neck
from skdeepfeat.networks.running import _poolings, _runtimes
from skdeepfeat.networks.running._layer import Layer
from skdeepfeat.networks.sources import _network_sources, _weights, _weights_sources
from skdeepfeat.networks.sources._weights_sources import FileWeights, RandomWeights


@pytest.mark.parametrize("name", _choices.POOLINGS)
def test_every_pooling_is_implemented(name):
    maps = torch.arange(24.0).reshape(1, 2, 3, 4)
    layers = [
        Layer("maps", "", (2, 3, 4), "NCHW"),
        Layer("maps", "", (2, 3, 4), "NHWC"),
        Layer("tokens", "", (6, 4), "NLC", has_class_token=True),
    ]
    inputs = maps, maps, maps.reshape(1, 6, 4)
    applied = 0
    for layer, tensor in zip(layers, inputs, strict=True):
        if _poolings.can_pool(layer, name):
            pooling = _poolings.resolve_pooling(name, layer)
            rows = _poolings.pool(tensor, layer, pooling)
            assert rows.shape == (1, _poolings.n_pooled(layer, pooling))
            if layer.layout == "NLC":  # without padding, a mask changes nothing
                mask = torch.ones(1, 6, dtype=torch.bool)
                masked = _poolings.pool(tensor, layer, pooling, mask)
                torch.testing.assert_close(masked, rows)
            applied += 1
    assert applied >= 1


def test_a_pooling_is_a_function_and_a_name(monkeypatch):
    def reduce(positions, axes, mask):
        return positions.amin(axes)

    monkeypatch.setitem(_poolings._REDUCTIONS, "min", reduce)
    monkeypatch.setattr(_choices, "POOLINGS", (*_choices.POOLINGS, "min"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)

    def rows(model, layer, pooling):
        neck = resolve_neck(model, layer=layer, pooling=pooling, image_size=64)
        with neck.loaded("cpu") as run:
            return run(pixels)[0]

    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval()
    found = rows(network, "0", "min")
    maps = rows(network, "0", "flatten").reshape(2, 4, -1)
    np.testing.assert_allclose(found, maps.min(-1), rtol=1e-6)
    # It also replaces the pooling of timm's networks, before their last layers.
    assert rows("efficientnet_lite0", "neck", "min").shape == (2, 1280)


@pytest.mark.parametrize("name", _choices.RUNTIMES)
def test_every_runtime_is_implemented(name):
    if name == "auto":
        return
    module = _runtimes.load_runtime(name)
    if name != "torch":
        assert module.TITLE and module.BATCH_PIXELS > 0
        assert callable(module.compile_network)
        cpu = torch.device("cpu")
        assert module.pays(cpu, "float32", 0) is False
        module.check(cpu, "float32")


@pytest.mark.parametrize("name", _choices.SOURCES)
def test_every_source_of_networks_is_implemented(name):
    names = list_models(source=name)
    assert names
    module = _network_sources._module_of(name)
    assert all(module.knows(one.rpartition("/")[2]) for one in names)
    assert not module.knows("no_such_network")


def test_every_source_of_weights_reads_its_own():
    kinds = _weights_sources.WEIGHTS_SOURCES
    for one, other in itertools.permutations(kinds, 2):
        assert one.wanted != other.wanted
    assert _weights_sources.read_weights("random", 3) == RandomWeights(3)
    path = "w.safetensors"
    assert isinstance(_weights_sources.read_weights(path, 0, False), FileWeights)
    assert _weights_sources.read_weights("IMAGENET1K_V1", 0) == "IMAGENET1K_V1"
    with pytest.raises(TypeError, match="'weights' .*'random' or a file. Got None"):
        resolve_neck("resnet18", weights=None)


def test_a_source_of_weights_is_a_class(monkeypatch, tmp_path):
    class Zeros(_weights.Weights):
        label, wanted = "zeros", "'zeros'"

        @classmethod
        def from_parameter(cls, weights, random_state, must_exist):
            return cls() if weights == "zeros" else None

        def identity(self, digest_file):
            return {"constant": 0}

        def store_key(self):
            return ("zeros",)

        def build_network(self, spec):
            network = spec.build()
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.zero_()
            return network, ()

    kinds = (Zeros, *_weights_sources.WEIGHTS_SOURCES)
    monkeypatch.setattr(_weights_sources, "WEIGHTS_SOURCES", kinds)
    for model in ("resnet18", "efficientnet_lite0", "timm/resnet18"):
        neck = resolve_neck(model, weights="zeros", image_size=32, layer="output")
        assert neck.descriptions("float32", None)[0]["weights"] == {"constant": 0}
        with neck.loaded("cpu") as run:
            assert not run(np.ones((1, 32, 32, 3), np.uint8))[0].any()
    with pytest.raises(ValueError, match="'weights' .*'zeros'"):
        resolve_neck("resnet18", weights="nothing")
