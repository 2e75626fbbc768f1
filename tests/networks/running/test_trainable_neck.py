"""A neck that gradients flow through: the same features, and who may learn."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks._modules import copy_network
from skdeepfeat.networks.running import _trainable_neck
from skdeepfeat.networks.running._trainable_neck import TrainableNeck

CPU = torch.device("cpu")


class Plain(nn.Module):
    """A user's network: three resolutions, something tied, something behind."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 3, 1, 1))
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8))
        self.middle = nn.Sequential(
            nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.last = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12))
        self.unused = nn.Linear(3, 3)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        x = self.last(self.middle(self.stem(x * self.token)))
        return self.fc(x.mean((2, 3)))


# Name: image size, a parameter of the first and of the last stage, one behind the neck.
NETWORKS = {
    "plain": (32, "stem.0.weight", "last.1.bias", "fc.weight"),
    "resnet18": (32, "conv1.weight", "layer4.1.bn2.weight", "fc.weight"),
    "efficientnet_lite0": (
        32,
        "conv_stem.weight",
        "bn2.weight",
        "classifier.weight",
    ),
    "timm/vit_tiny_patch16_224": (32, "cls_token", "norm.weight", "head.weight"),
    "swin_t": (64, "features.0.0.weight", "norm.weight", "head.weight"),
    "densenet121": (
        32,
        "features.conv0.weight",
        "features.norm5.weight",
        "classifier.weight",
    ),
}


@pytest.fixture(scope="module")
def necks():
    return {}


SLOW = {"swin_t", "densenet121"}


@pytest.fixture(
    params=[
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in NETWORKS
    ]
)
def case(request, necks, randomise):
    """Return a neck, its image size, and three of its parameters."""
    name = request.param
    size, *parameters = NETWORKS[name]
    if name not in necks:
        model = randomise(Plain()) if name == "plain" else name
        weights = "default" if name in ("plain", "efficientnet_lite0") else "random"
        necks[name] = resolve_neck(model, weights=weights, image_size=size)
    return necks[name], size, parameters


def images_of(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def rows_of(neck, pixels):
    with neck.loaded(CPU) as run:
        [rows] = run(pixels)
    return rows


def buffers_of(network):
    return {name: tensor.clone() for name, tensor in network.named_buffers()}


# -- The same features


def test_features_are_the_runners(case, batch, assert_close):
    neck, size, _ = case
    pixels = batch(3, size)
    trainable = neck.trainable().eval()
    found = trainable(images_of(pixels))
    assert found.shape == (3, trainable.n_features) == (3, neck.n_features()[0])
    assert found.requires_grad
    wanted = torch.from_numpy(rows_of(neck, pixels))
    assert_close(found.detach().numpy(), wanted, tolerance=1e-5)
    from_floats = trainable(images_of(pixels).float() / 255)
    assert_close(from_floats.detach().numpy(), wanted, tolerance=1e-5)


# -- Who learns


def test_gradients_reach_exactly_the_parameters_with_a_stage(case, batch):
    neck, size, (first, last, behind) = case
    trainable = neck.trainable()
    stages = trainable.stage_of_parameter
    assert stages[first] == 0
    assert stages[last] == trainable.n_stages - 1
    assert behind not in stages
    assert set(stages.values()) == set(range(trainable.n_stages))
    flags = {n: p.requires_grad for n, p in trainable.network.named_parameters()}
    assert {name for name, flag in flags.items() if flag} == set(stages)
    # Whoever may have a gradient: found are those that get one.
    trainable.network.requires_grad_(True)
    trainable.train()(images_of(batch(2, size))).square().sum().backward()
    reached = {
        name
        for name, parameter in trainable.network.named_parameters()
        if parameter.grad is not None
    }
    assert reached == set(stages)


def test_groups_hold_each_parameter_once_by_stage(case):
    trainable = case[0].trainable()
    groups = trainable.parameter_groups()
    assert len(groups) == trainable.n_stages
    found = {
        name: stage for stage, group in enumerate(groups) for name, parameter in group
    }
    assert found == trainable.stage_of_parameter
    by_name = dict(trainable.network.named_parameters())
    assert all(by_name[n] is p for group in groups for n, p in group)


def test_stages_follow_one_another(case):
    """What learns later in the network's own order is in no earlier stage."""
    trainable = case[0].trainable()
    running = [
        (layer.order, trainable.stage_of_module[name])
        for name, layer in case[0].probe.layers.items()
        if not any(other.startswith(f"{name}.") for other in case[0].probe.layers)
    ]
    stages = [stage for _, stage in sorted(running)]
    assert stages == sorted(stages)


def test_train_parts_freezes_what_it_says(case, batch):
    neck, size, _ = case
    trainable = neck.trainable()
    network, images = trainable.network, images_of(batch(4, size))
    norms = {
        name: trainable.stage_of_parameter[f"{name}.weight"]
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.affine
    }
    for first in {0, 1, trainable.n_stages - 1, trainable.n_stages}:
        trainable.train_parts(range(first, trainable.n_stages))
        for name, parameter in network.named_parameters():
            stage = trainable.stage_of_parameter.get(name, -1)
            assert parameter.requires_grad == (stage >= first), name
        before = buffers_of(network)
        trainable(images)
        after = buffers_of(network)
        for name, stage in norms.items():
            assert network.get_submodule(name).training == (stage >= first)
            for kind in ("running_mean", "running_var", "num_batches_tracked"):
                key = f"{name}.{kind}"
                moved = not torch.equal(before[key], after[key])
                assert moved == (stage >= first), key


def learning(trainable):
    """Return the names of the parameters that learn."""
    return {n for n, p in trainable.network.named_parameters() if p.requires_grad}


PARTS = {
    "first stage": (
        (0,),
        {"token", "stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"},
    ),
    "last stage": (
        (-1,),
        {"last.0.weight", "last.0.bias", "last.1.weight", "last.1.bias"},
    ),
    "layer": (("middle.0",), {"middle.0.weight", "middle.0.bias"}),
    "union": (
        (1, "stem.0"),
        {"middle.0.weight", "middle.0.bias", "middle.1.weight", "middle.1.bias"}
        | {"stem.0.weight", "stem.0.bias"},
    ),
    "normalization": (
        ("normalization",),
        {f"{m}.1.{w}" for m in ("stem", "middle", "last") for w in ("weight", "bias")},
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts(name, randomise, batch):
    parts, expected = PARTS[name]
    trainable = resolve_neck(randomise(Plain()), image_size=32).trainable()
    trainable.train_parts(parts)
    assert learning(trainable) == expected
    owners = {key.rpartition(".")[0] for key in expected}
    for key, module in trainable.network.named_modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            assert module.training == (key in owners), key
    trainable.train_parts(parts, freeze_statistics=True)
    assert learning(trainable) == expected
    before = buffers_of(trainable.network)
    trainable(images_of(batch(2, 32))).sum().backward()
    after = buffers_of(trainable.network)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("part", "hint"),
    [
        (3, ""),
        (-4, ""),
        ("midle", "Did you mean 'middle'"),
        ("fc", ""),
        ("stem.1.x", ""),
    ],
)
def test_a_part_that_is_not_there(part, hint, randomise):
    trainable = resolve_neck(randomise(Plain()), image_size=32).trainable()
    with pytest.raises(ValueError, match="^The 'unfreeze' parameter must") as error:
        trainable.train_parts((part,))
    assert "3 stage(s) (0 ends with 'stem', 1 ends with 'middle'" in str(error.value)
    assert hint in str(error.value)


def test_normalizations_of_any_kind():
    class Own(nn.LayerNorm):
        pass

    network = nn.Sequential(
        nn.Conv2d(3, 8, 4, 4),
        nn.GroupNorm(2, 8),
        nn.Flatten(2),
        Own(64),
        nn.Linear(64, 5),
    )
    trainable = resolve_neck(network, image_size=32).trainable()
    trainable.train_parts(["normalization"])
    assert learning(trainable) == {"1.weight", "1.bias", "3.weight", "3.bias"}


def test_no_normalization_is_an_error():
    network = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(), nn.Linear(512, 5))
    trainable = resolve_neck(network, image_size=32).trainable()
    with pytest.raises(ValueError, match="Got 'normalization' instead"):
        trainable.train_parts(["normalization"])


def test_all_frozen_is_evaluation(case, batch):
    neck, size, _ = case
    trainable, images = neck.trainable(), images_of(batch(3, size))
    wanted = trainable.eval()(images)
    trainable.train()
    trainable.train_parts(())
    found = trainable(images)
    assert torch.equal(found, wanted)
    assert not found.requires_grad


# -- Nobody else's weights


def test_training_leaves_the_stores_network_alone(case, batch):
    neck, size, _ = case
    pixels = batch(2, size)
    before = rows_of(neck, pixels)
    trainable = neck.trainable().train()
    optimizer = torch.optim.SGD(trainable.network.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        trainable(images_of(pixels)).square().mean().backward()
        optimizer.step()
    np.testing.assert_array_equal(rows_of(neck, pixels), before)
    trained = trainable.eval()(images_of(pixels)).detach().numpy()
    assert not np.allclose(trained, before, equal_nan=True)


def test_two_necks_learn_apart(case):
    one, other = case[0].trainable().network, case[0].trainable().network
    pointers = {t.data_ptr() for t in [*one.parameters(), *one.buffers()]}
    assert not pointers & {t.data_ptr() for t in [*other.parameters()]}
    assert not pointers & {t.data_ptr() for t in other.buffers() if t.numel()}


def test_a_users_module_stays_as_it_was(randomise, batch):
    network = randomise(Plain()).train()
    network.stem.requires_grad_(False)
    network.fc.weight.grad = torch.ones_like(network.fc.weight)
    before = copy.deepcopy(network.state_dict())
    flags = [(p.requires_grad, p.grad is None) for p in network.parameters()]
    trainable = resolve_neck(network, image_size=32).trainable()
    trainable.train_parts(range(trainable.n_stages))
    trainable(images_of(batch(2, 32))).sum().backward()
    assert "stem.0.weight" in trainable.stage_of_parameter  # frozen by its user or not
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert [(p.requires_grad, p.grad is None) for p in network.parameters()] == flags
    assert all(module.training for module in network.modules())


def test_own_copy_shares_nothing_but_what_was_tied():
    network = Plain()
    network.second = nn.Conv2d(8, 8, 3)
    network.second.weight = network.middle[0].weight
    network.register_buffer("one", torch.rand(3))
    network.register_buffer("same", network.one)
    network.fc.bias.requires_grad_(False)
    copied = copy_network(network, owned=True)
    pointers = {t.data_ptr() for t in [*network.parameters(), *network.buffers()]}
    for name, tensor in [*copied.named_parameters(), *copied.named_buffers()]:
        assert tensor.data_ptr() not in pointers, name
    for name, tensor in network.state_dict().items():
        assert torch.equal(copied.state_dict()[name], tensor)
    assert copied.second.weight is copied.middle[0].weight
    assert copied.same is copied.one
    assert not copied.fc.bias.requires_grad
    assert copied.fc.weight.requires_grad
    assert not any(module.training for module in copied.modules())


def test_own_copy_keeps_the_order_in_memory():
    network = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    weight = copy_network(network, owned=True).weight
    assert weight.is_contiguous(memory_format=torch.channels_last)


# -- Networks with ways of their own


class Viewing(nn.Module):
    """`view` of images whose channels are last in memory is an error."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 8 * 8, 6)
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        return self.fc(self.linear(x.view(len(x), -1)))


class ViewingPooled(nn.Module):
    """`view` of what a pooling returns, which has another layout on the meta device."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        x = nn.functional.adaptive_avg_pool2d(self.conv(x).relu(), 2)
        return self.fc(x.view(-1, 16))


class LooksAtNumbers(Plain):
    """Goes on by what it has computed."""

    def forward(self, x):
        return super().forward(x) if float(x.max()) < 1e9 else x


class Scale(torch.autograd.Function):
    """Multiplies by a scale, which has no gradient. `view`s gradients."""

    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(scale)
        return x * scale

    @staticmethod
    def backward(ctx, gradient):
        (scale,) = ctx.saved_tensors
        return (gradient.view(-1) * scale).view(gradient.shape), None


class WithFunction(Plain):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x):
        return super().forward(Scale.apply(x, self.scale))


class Recomputing(Plain):
    """Keeps little of its pass for the gradients."""

    def forward(self, x):
        x = checkpoint(self.middle, self.stem(x * self.token), use_reentrant=True)
        return self.fc(self.last(x).mean((2, 3)))


class Double(Plain):
    def __init__(self):
        super().__init__()
        self.double()


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (Viewing, 8),
        (ViewingPooled, 8),
        (LooksAtNumbers, 32),
        (Double, 32),
        (WithFunction, 32),
        (Recomputing, 32),
    ],
)
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_unusual_networks(randomise, batch, assert_close, kind, size):
    network, pixels = randomise(kind()), batch(3, size)
    neck = resolve_neck(network, image_size=size)
    trainable = neck.trainable().eval()
    found = trainable(images_of(pixels))
    assert_close(found.detach().numpy(), torch.from_numpy(rows_of(neck, pixels)), 1e-5)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(p.grad is None for p in trainable.network.parameters())
    trainable.train_parts(range(trainable.n_stages))
    trainable(images_of(pixels)).sum().backward()
    assert {
        name for name, p in trainable.network.named_parameters() if p.grad is not None
    } == set(trainable.stage_of_parameter)


class Changing(Plain):
    """Draws random numbers and changes its buffers, in evaluation mode as well."""

    def forward(self, x):
        norm = self.stem[1]
        norm.num_batches_tracked.add_(1)
        x = nn.functional.dropout(self.stem[0](x * self.token), training=True)
        x = nn.functional.batch_norm(
            x, norm.running_mean, norm.running_var, training=True
        )
        return self.fc(self.last(self.middle(x)).mean((2, 3)))


def test_a_trial_leaves_no_trace():
    network = Changing()
    state, random_state = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    trainable = resolve_neck(network, image_size=32).trainable()
    assert torch.equal(torch.get_rng_state(), random_state)
    for one in (network, trainable.network):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, state[name]), name


def test_a_named_network_is_tried_out_once(monkeypatch):
    trials = []

    def try_out(self, size):
        trials.append(size)
        return found(self, size)

    found = TrainableNeck._try_out
    monkeypatch.setattr(TrainableNeck, "_try_out", try_out)
    monkeypatch.setattr(_trainable_neck, "_examined", {})
    named = {"model": "timm/test_resnet", "weights": "random"}
    first, again = (resolve_neck(**named, image_size=32).trainable() for _ in range(2))
    assert trials == [(32, 32)]
    assert first.stage_of_parameter == again.stage_of_parameter
    other = resolve_neck(**named, image_size=32, layer=0).trainable()
    assert other.stage_of_parameter.keys() < first.stage_of_parameter.keys()
    resolve_neck(**named, image_size=64).trainable()
    # A network of one's own may have changed.
    for _ in range(2):
        resolve_neck(Changing(), image_size=32).trainable()
    assert len(trials) == 5


def test_a_network_without_parameters_has_nothing_to_learn(batch):
    neck = resolve_neck(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), image_size=8)
    trainable = neck.trainable()
    assert trainable.stage_of_parameter == {}
    assert [*trainable.parameter_groups()] == [[]] * trainable.n_stages
    assert not trainable(images_of(batch(2, 8))).requires_grad


def test_modules_that_are_used_as_numbers_only(batch):
    """A linear layer whose weight is used, but which is never called."""

    class Functional(Plain):
        def forward(self, x):
            x = self.last(self.middle(self.stem(x * self.token))).mean((2, 3))
            x = nn.functional.linear(x, self.fc.weight)
            return x @ self.unused.weight.mean().expand(5, 5)

    neck = resolve_neck(Functional(), layer="output", image_size=32)
    stages = neck.trainable().stage_of_parameter
    assert {"fc.weight", "unused.weight"} <= set(stages)
    assert "fc.bias" not in stages
