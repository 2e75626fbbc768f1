"""Layers are replaced by what data describes, and by nothing else."""

import copy
import pickle

import pytest
import torch
from networks import fix_weights
from timm.layers import Conv2dSame
from torch import nn

from skdeepfeat.compression._factorizations import FACTORIZATIONS, apply_option
from skdeepfeat.compression._layers import LayerUse
from skdeepfeat.networks import (
    _layer_changes,
    apply_changes,
    change_layer,
    changes_of,
    copy_network,
    resolve_neck,
)
from skdeepfeat.networks.probing import _probe, _stages


class KindsNet(nn.Module):
    """Convolutions of many geometries, and linear layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.same = Conv2dSame(8, 12, 3, stride=2)
        self.wide = nn.Conv2d(12, 10, (3, 5), padding=(2, 4), dilation=2)
        self.mirror = nn.Conv2d(10, 9, 3, padding=1, padding_mode="reflect")
        self.named = nn.Conv2d(9, 8, 3, padding="same")
        self.point = nn.Conv2d(8, 16, 1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.hidden = nn.Linear(16, 12)
        self.head = nn.Linear(12, 5)
        fix_weights(self, scale=1 / 3)
        self.eval()

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = self.mirror(self.wide(self.same(x).relu()).relu()).relu()
        x = self.depthwise(self.point(self.named(x)).relu()).mean((2, 3))
        return self.head(self.hidden(x).relu())


IMAGES = torch.randn(2, 3, 24, 28, generator=torch.Generator().manual_seed(0))
CONVOLUTIONS = ["stem", "same", "wide", "mirror", "named", "point"]
LINEAR = ["hidden", "head"]


def observed(network, name):
    """Return the `LayerUse` of a layer."""
    use = LayerUse(name, network.get_submodule(name))

    def hook(module, args, outputs):
        use.count(args[0], outputs)
        use.record(args[0], outputs)

    handle = use.layer.register_forward_hook(hook)
    with torch.no_grad():
        network(IMAGES)
    handle.remove()
    return use


def largest_options(name):
    """Yield for each kind of layer the option with the largest rank."""
    use = observed(KindsNet(), name)
    # Otherwise an option that saves nothing is not made.
    use.n_outputs *= 1000
    kinds = {}
    for method, factorization in FACTORIZATIONS.items():
        for option in factorization.options(use):
            key = method, option.change["kind"]
            if key not in kinds or option.error < kinds[key].error:
                kinds[key] = option
    return kinds


@pytest.mark.parametrize("name", CONVOLUTIONS + LINEAR)
def test_full_rank_computes_the_same(name):
    network = KindsNet()
    with torch.no_grad():
        wanted = network(IMAGES)
    exact = 0
    for (method, kind), option in largest_options(name).items():
        changed = copy.deepcopy(network)
        apply_option(changed, name, option)
        with torch.no_grad():
            found = changed(IMAGES)
        assert found.shape == wanted.shape
        if option.error < 1e-9:
            exact += 1
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        parameters = sum(p.numel() for p in changed.get_submodule(name).parameters())
        assert parameters == option.n_parameters, (method, kind)
    assert exact >= 2


@pytest.mark.parametrize("name", CONVOLUTIONS + LINEAR)
def test_changes_are_data(name):
    for option in largest_options(name).values():
        changed = KindsNet()
        apply_option(changed, name, option)
        # A copy, and one through a pickle, know their changes.
        for one in (copy.deepcopy(changed), pickle.loads(pickle.dumps(changed))):
            assert changes_of(one) == changes_of(changed)
        with torch.device("meta"):
            empty = KindsNet()
        again = apply_changes(empty, changes_of(changed)).to_empty(device="cpu")
        again.load_state_dict(changed.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(again(IMAGES), changed(IMAGES), rtol=0, atol=0)


def test_a_network_without_changes_has_none():
    assert changes_of(KindsNet()) == []
    assert apply_changes(KindsNet(), []) is not None


def test_channels_are_removed_from_the_layers_themselves():
    network = KindsNet()
    for change in [
        {"layer": "stem", "kind": "resized", "inputs": 3, "outputs": 5},
        {"layer": "norm", "kind": "resized", "inputs": 5, "outputs": 5},
        {"layer": "same", "kind": "resized", "inputs": 5, "outputs": 12},
        {"layer": "point", "kind": "resized", "inputs": 8, "outputs": 7},
        {"layer": "depthwise", "kind": "resized", "inputs": 7, "outputs": 7},
        {"layer": "hidden", "kind": "resized", "inputs": 7, "outputs": 12},
    ]:
        change_layer(network, change)
    fix_weights(network, scale=1 / 3)
    assert network(IMAGES).shape == (2, 5)
    assert network.depthwise.groups == 7
    assert network.norm.running_var.shape == (5,)
    assert len(changes_of(network)) == 6


WRONG = {
    "no dict": "stem",
    "no kind": {"layer": "stem", "kind": "removed"},
    "kind of a list": {"layer": "stem", "kind": []},
    "nothing": {},
    "no layer": {"layer": "stern", "kind": "low_rank", "rank": 2, "bias": True},
    "no name": {"layer": 3, "kind": "low_rank", "rank": 2, "bias": True},
    "no rank": {"layer": "stem", "kind": "low_rank", "bias": True},
    "more": {"layer": "stem", "kind": "separable", "rank": 2, "code": "import os"},
    "method": {"layer": "forward", "kind": "repeated"},
    "class": {"layer": "__class__", "kind": "repeated"},
    "weight": {"layer": "stem.weight", "kind": "repeated"},
    "list": {"layer": ["stem"], "kind": "repeated"},
    "rank 0": {"layer": "stem", "kind": "separable", "rank": 0},
    "rank -1": {"layer": "stem", "kind": "low_rank", "rank": -1, "bias": True},
    "large": {"layer": "stem", "kind": "low_rank", "rank": 9, "bias": True},
    "true": {"layer": "stem", "kind": "low_rank", "rank": True, "bias": True},
    "float": {"layer": "stem", "kind": "low_rank", "rank": 2.0, "bias": True},
    "flag": {"layer": "stem", "kind": "low_rank", "rank": 2, "bias": 1},
    "norm": {"layer": "norm", "kind": "low_rank", "rank": 2, "bias": True},
    "whole": {"layer": "", "kind": "low_rank", "rank": 2, "bias": True},
    "groups": {"layer": "depthwise", "kind": "separable", "rank": 2},
    "ranks": {"layer": "stem", "kind": "tucker", "ranks": [3]},
    "large ranks": {"layer": "stem", "kind": "tucker", "ranks": [4, 8]},
    "larger": {"layer": "stem", "kind": "resized", "inputs": 3, "outputs": 9},
    "not larger": {"layer": "stem", "kind": "widened", "inputs": 2, "outputs": 9},
    "huge": {"layer": "stem", "kind": "widened", "inputs": 3, "outputs": 10**6},
    "uneven": {"layer": "depthwise", "kind": "widened", "inputs": 8, "outputs": 9},
    "no channels": {
        "layer": "stem", "kind": "deepened", "channels": 99, "kernel": 3,
        "batch_norm": True, "before": True,
    },
    "kernel": {
        "layer": "stem", "kind": "deepened", "channels": 8, "kernel": 99,
        "batch_norm": True, "before": True,
    },
    "whole block": {"layer": "", "kind": "repeated"},
    "train": {
        "layer": "hidden", "kind": "tensor_train", "in_shape": [4, 4],
        "out_shape": [4, 4], "ranks": [2],
    },
    "train of text": {
        "layer": "hidden", "kind": "tensor_train", "in_shape": "44",
        "out_shape": [3, 4], "ranks": [2],
    },
    "NaN": {"layer": "stem", "kind": "separable", "rank": float("nan")},
    "unlike train": {
        "layer": "hidden", "kind": "tensor_train", "in_shape": [4, 4],
        "out_shape": [4, 3], "ranks": [2, 2],
    },
    "endless train": {
        "layer": "hidden", "kind": "tensor_train", "in_shape": [16, *[1] * 99],
        "out_shape": [12, *[1] * 99], "ranks": [1] * 99,
    },
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_changes_are_refused(case):
    network = KindsNet()
    with pytest.raises(ValueError, match="changed layer"):
        change_layer(network, WRONG[case])
    assert changes_of(network) == []
    network(IMAGES)


def test_the_name_of_a_layer_runs_no_code():
    class Trap(nn.Sequential):
        @property
        def inner(self):
            raise AssertionError("this runs")

    with pytest.raises(ValueError, match="no such layer"):
        change_layer(Trap(nn.Linear(1, 1)), {"layer": "inner", "kind": "repeated"})


def test_changes_take_no_memory_before_they_are_filled():
    network = nn.Sequential(nn.Conv2d(1, 10**6, 1, device="meta"), nn.Linear(4, 4))
    sizes = {"kind": "tucker", "ranks": [1, 10**6]}
    apply_changes(network, [{"layer": "0", **sizes}] + [
        {"layer": f"1{'.0' * k}", "kind": "low_rank", "rank": 4, "bias": False}
        for k in range(20)
    ])  # fmt: skip
    new = [*network[0].parameters(), *network[1].parameters()]
    assert all(one.is_meta for one in new)


def test_a_file_cannot_double_a_network_again_and_again():
    network = KindsNet()
    change = {"layer": "stem", "kind": "repeated"}
    change_layer(network, change)
    with pytest.raises(ValueError, match="a sequence is not a block"):
        change_layer(network, change)
    inner = {"layer": "stem.0", "kind": "repeated"}
    with pytest.raises(ValueError, match="more than 100 levels"):
        for _ in range(200):
            change_layer(network, inner)
            inner = {**inner, "layer": f"{inner['layer']}.0"}
    network = nn.Sequential(*(nn.Linear(1, 1) for _ in range(201)))
    with pytest.raises(ValueError, match="more than 200 repeated"):
        for name, _ in [*network.named_children()]:
            change_layer(network, {"layer": name, "kind": "repeated"})


def test_a_file_cannot_nest_modules_without_end():
    change = {
        "layer": "stem", "kind": "deepened", "channels": 8, "kernel": 3,
        "batch_norm": True, "before": True,
    }  # fmt: skip
    apply_changes(KindsNet(), [change] * 20)
    with pytest.raises(ValueError, match="more than 50 levels"):
        apply_changes(KindsNet(), [change] * 100)


def test_sizes_that_overflow_are_refused():
    network = nn.Sequential(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="overflow"):
        for size in (64**k for k in range(1, 20)):
            sizes = {"inputs": size, "outputs": size}
            change_layer(network, {"layer": "0", "kind": "widened", **sizes})


def test_a_file_cannot_ask_for_endless_changes(monkeypatch):
    monkeypatch.setattr(_layer_changes, "_MAX_CHANGES", 5)
    change = {"layer": "stem", "kind": "resized", "inputs": 3, "outputs": 8}
    apply_changes(KindsNet(), [change] * 5)
    with pytest.raises(ValueError, match="more than 5 changes"):
        apply_changes(KindsNet(), [change] * 6)


def test_a_replaced_layer_is_the_stage_that_it_was(monkeypatch):
    network = nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Conv2d(8, 8, 2, stride=2),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip
    neck = resolve_neck(network, image_size=32)
    changed = copy_network(network, owned=True)
    # Rows after columns: each halves the resolution twice.
    change_layer(
        changed,
        {"layer": "0", "kind": "separable", "rank": 2},
        {
            "0.weight": torch.ones(2, 3, 4, 1),
            "1.weight": torch.ones(8, 2, 1, 4),
            "1.bias": torch.zeros(8),
        },
    )
    stages = neck.trainable().stage_layers
    assert len(stages) == 2
    assert resolve_neck(changed, image_size=32).trainable().stage_layers == stages
    # Each candidate of a search is such a network, and is not examined again.
    monkeypatch.setattr(_stages, "probe_spec", None)
    assert neck.with_network(changed).trainable().stage_layers == stages


def test_a_tuned_network_is_not_examined_again(monkeypatch):
    settings = {"weights": "random", "image_size": 64, "random_state": 0}
    body = resolve_neck("timm/test_efficientnet", **settings).trainable()
    neck = resolve_neck("timm/test_efficientnet", **settings)
    monkeypatch.setattr(_probe, "_probe_or_explain", None)
    tuned = neck.with_network(body.network)
    assert tuned.trainable().stage_layers == body.stage_layers
    assert tuned.last_map() is not None
    tuned.at_layer(-1)
