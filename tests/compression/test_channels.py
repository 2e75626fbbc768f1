"""Channels are removed where nothing else changes: pruned equals masked."""

import copy

import pytest
import torch
from networks import fix_weights, small_vgg
from torch import nn

from skdeepfeat.compression._channels import find_channel_groups, remove_channels
from skdeepfeat.compression._model import Model
from skdeepfeat.networks import apply_changes, changes_of, merge_resizings, resolve_neck

SIZE = 32
IMAGES = torch.randint(
    0, 256, (2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)
).to(torch.uint8)


def sequential():
    """Return a plain network with flattened maps, dropout and hidden layers."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(4),
        nn.Conv2d(16, 12, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12 * 16, 20),
        nn.GELU(),
        nn.Dropout(),
        nn.Linear(20, 10),
        nn.ReLU(),
        nn.Linear(10, 4),
    )


class Gated(nn.Module):
    """Squeeze and excitation, depthwise, a residual connection; written by hand."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.wide = nn.Conv2d(8, 24, 1)
        self.depthwise = nn.Conv2d(24, 24, 3, padding=1, groups=24)
        self.squeeze = nn.Conv2d(24, 6, 1)
        self.excite = nn.Conv2d(6, 24, 1)
        self.narrow = nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        inner = self.depthwise(self.wide(x).relu())
        gate = self.excite(self.squeeze(inner.mean((2, 3), keepdim=True)).relu())
        x = x + self.narrow(inner * torch.sigmoid(gate))
        return self.head(x.mean(dim=(-1, -2)))


class Twice(nn.Module):
    """A layer that runs twice, grouped channels, maps that are joined."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)
        self.norm = nn.GroupNorm(2, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.grouped(self.twice(self.twice(self.stem(x).relu()).relu()).relu())
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.head(self.norm(x).mean((2, 3)))


class Stubborn(nn.Module):
    """Code that counts on the number of channels."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 6, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = self.first(x)
        assert x.shape[1] == 8
        return self.head(self.second(x.relu()).relu().mean((2, 3)))


def model_of(network, size=SIZE, **parameters):
    if isinstance(network, nn.Module):
        fix_weights(network, scale=1 / 4)
        parameters["preprocessing"] = {"resize": size, "crop": (size, size)}
    else:
        parameters["image_size"] = size
    neck = resolve_neck(network, **parameters)
    return Model(neck.trainable(), nn.Identity())


def randomize(network):
    """Give statistics and scales values that mistakes cannot hide behind, in float64.

    Many random layers behind each other would amplify the rounding of float32.
    """
    network.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.7, 1.4, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
                # timm's are zero at the end of a block.
                module.weight.uniform_(0.7, 1.4, generator=generator)
        for name, parameter in network.named_parameters():
            if name.endswith(("gamma", "layer_scale")):
                parameter.normal_(0, 0.5, generator=generator)


def free_groups(model):
    return [one for one in find_channel_groups(model.body, IMAGES) if not one.obstacle]


@torch.no_grad()
def assert_pruned_equals_masked(model):
    randomize(model.network)
    groups = free_groups(model)
    masked, pruned = copy.deepcopy(model), copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    for group in groups:
        n = group.n_channels
        kept = torch.randperm(n, generator=generator)[: max(1, n // 2)].sort().values
        gone = torch.ones(n, dtype=torch.bool).index_fill(0, kept, False)
        for name, n_each in group.consumers:
            layer = masked.network.get_submodule(name)
            layer.weight[:, gone.repeat_interleave(n_each)] = 0
        remove_channels(pruned.network, group, kept)
        assert group.n_channels == len(kept)
    wanted = masked(IMAGES)
    assert not torch.allclose(wanted, model(IMAGES), rtol=1e-3)
    scale = float(wanted.abs().max())
    torch.testing.assert_close(pruned(IMAGES), wanted, rtol=0, atol=1e-6 * scale)
    # The changes rebuild it from the original network.
    again = apply_changes(copy.deepcopy(model.network), changes_of(pruned.network))
    again.load_state_dict(pruned.network.state_dict())
    merge_resizings(pruned.network, 0)
    merged = apply_changes(copy.deepcopy(model.network), changes_of(pruned.network))
    merged.load_state_dict(again.state_dict())
    return groups, pruned


def test_a_vgg():
    groups, _ = assert_pruned_equals_masked(model_of(small_vgg()))
    assert len(groups) >= 8


@pytest.mark.parametrize("make", [sequential, Gated])
def test_networks_written_by_hand(make):
    model = model_of(make())
    groups, pruned = assert_pruned_equals_masked(model)
    assert len(groups) == (3 if make is sequential else 2)
    if make is Gated:
        assert groups[0].producers == ["wide", "excite"]
        assert sorted(dict(groups[0].consumers)) == ["narrow", "squeeze"]
        assert pruned.network.depthwise.groups == 12
    else:
        assert ("8", 16) in groups[1].consumers


@pytest.mark.parametrize(
    ("name", "n_groups"),
    [
        pytest.param("efficientnet_lite0", 18, marks=pytest.mark.slow),
        ("timm/convnext_atto", 12),
    ],
)
def test_families(name, n_groups):
    weights = "default" if name == "efficientnet_lite0" else "random"
    groups, _ = assert_pruned_equals_masked(model_of(name, weights=weights))
    assert len(groups) >= n_groups - 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_groups"),
    [
        ("resnet18", 8),
        ("resnet50", 32),
        ("timm/resnet18", 8),
        ("mobilenet_v2", 17),
        ("timm/mobilenetv3_small_050", 11),
        ("convnext_tiny", 18),
    ],
)
def test_more_families(name, n_groups):
    groups, _ = assert_pruned_equals_masked(model_of(name, weights="random"))
    assert len(groups) >= n_groups


class Overwritten(nn.Module):
    """Code that changes one channel, and code that divides by their number."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 6, 3)
        self.third = nn.Conv2d(6, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = self.first(x).relu().clone()
        x[:, 0] = 1
        x = self.second(x).relu()
        x = x / x.shape[1]
        return self.head(self.third(x).relu().mean((2, 3)))


def test_channels_that_the_code_counts_are_kept():
    groups = find_channel_groups(model_of(Overwritten()).body, IMAGES)
    obstacles = {one.producers[0]: one.obstacle for one in groups}
    for name in ("first", "second"):
        assert "something else" in obstacles[name]


@pytest.mark.parametrize("make", [Twice, Stubborn])
def test_what_cannot_be_removed_is_listed(make):
    model = model_of(make())
    before = copy.deepcopy(model.network)
    groups = find_channel_groups(model.body, IMAGES)
    obstacles = {name: one.obstacle for one in groups for name in one.producers}
    # The last map is returned as features.
    assert all(obstacles.values()), obstacles
    assert "several times" in "".join(obstacles.values()) or make is Stubborn
    assert "does not run" in "".join(obstacles.values()) or make is Twice
    # To look for channels changes nothing.
    assert changes_of(model.network) == []
    state = before.state_dict()
    for name, value in model.network.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


class StubbornAtFirst(Stubborn):
    """Its second layer may lose channels."""

    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def test_an_obstacle_leaves_other_channels_free():
    groups = find_channel_groups(model_of(StubbornAtFirst()).body, IMAGES)
    obstacles = {one.producers[0]: one.obstacle for one in groups}
    assert "does not run" in obstacles["first"]
    assert obstacles["second"] == ""
