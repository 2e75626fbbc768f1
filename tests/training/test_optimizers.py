"""Optimisers: who learns how fast, and whose weights decay."""

import pytest
import torch
from torch import nn

from skdeepfeat.training import OPTIMIZERS, make_optimizer

KINDS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@pytest.fixture
def stages(make_net):
    """Return groups: a convolution, a normalisation, a head."""
    net = make_net(batch_norm=True)
    return [
        [(f"{i}.{name}", p) for name, p in net[i].named_parameters()] for i in (1, 2, 6)
    ]


def options_of(optimizer, parameter):
    [group] = [
        group
        for group in optimizer.param_groups
        if any(one is parameter for one in group["params"])
    ]
    return group


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_parameter_is_in_one_group(stages, name):
    optimizer = make_optimizer(name, stages, learning_rate=0.1, weight_decay=0.01)
    assert type(optimizer) is KINDS[name]
    found = [id(p) for group in optimizer.param_groups for p in group["params"]]
    wanted = [id(p) for stage in stages for _, p in stage]
    assert sorted(found) == sorted(wanted)


def test_rates_fall_with_the_depth(stages):
    optimizer = make_optimizer("adamw", stages, learning_rate=0.1, layer_decay=0.5)
    for stage, share in zip(stages, (0.25, 0.5, 1.0), strict=True):
        for _, parameter in stage:
            options = options_of(optimizer, parameter)
            assert options["lr_scale"] == share
            assert options["lr"] == pytest.approx(0.1 * share)


def test_a_stage_without_parameters_counts_as_depth(stages):
    optimizer = make_optimizer(
        "sgd", [stages[0], [], stages[2]], learning_rate=0.1, layer_decay=0.5
    )
    assert options_of(optimizer, stages[0][0][1])["lr_scale"] == 0.25


def test_only_matrices_and_kernels_decay(stages):
    optimizer = make_optimizer("adamw", stages, learning_rate=0.1, weight_decay=0.3)
    for stage in stages:
        for name, parameter in stage:
            decays = name in ("1.weight", "6.weight")
            wanted = 0.3 if decays else 0.0
            assert options_of(optimizer, parameter)["weight_decay"] == wanted


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_moves_what_has_no_gradient_of_its_own(name):
    layer = nn.Linear(2, 1)
    # Larger than a step, which would otherwise cross zero.
    nn.init.constant_(layer.weight, 0.5)
    before = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = make_optimizer(
        name, [list(layer.named_parameters())], learning_rate=0.1, weight_decay=0.5
    )
    for parameter in layer.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert (layer.weight.abs() < before[0].abs()).all()
    assert torch.equal(layer.bias, before[1])


@pytest.mark.parametrize(
    ("params", "momentum", "nesterov"),
    [(None, 0.9, True), ({}, 0.0, False), ({"momentum": 0.5}, 0.5, False)],
)
def test_sgd_has_nesterov_momentum_by_default(stages, params, momentum, nesterov):
    optimizer = make_optimizer("sgd", stages, learning_rate=0.1, params=params)
    for group in optimizer.param_groups:
        assert (group["momentum"], group["nesterov"]) == (momentum, nesterov)


def test_params_reach_the_optimizer(stages):
    params = {"betas": (0.8, 0.98), "amsgrad": True}
    optimizer = make_optimizer("adamw", stages, learning_rate=0.1, params=params)
    for group in optimizer.param_groups:
        assert (group["betas"], group["amsgrad"]) == ((0.8, 0.98), True)
    assert params == {"betas": (0.8, 0.98), "amsgrad": True}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"lr": 1.0}, "'learning_rate'"),
        ({"weight_decay": 1.0}, "'weight_decay'"),
        ({"params": []}, "must not hold"),
        ({"momentum": 0.9}, "of torch.optim.AdamW"),
        ({"betas": (2.0, 0.9)}, "Invalid beta"),
        ({"eps": "small"}, "of torch.optim.AdamW"),
    ],
)
def test_params_that_the_optimizer_does_not_take(stages, params, message):
    with pytest.raises(ValueError, match=f"'optimizer_params' parameter.*{message}"):
        make_optimizer("adamw", stages, learning_rate=0.1, params=params)


def test_an_unknown_optimizer_is_not_taken_for_another(stages):
    with pytest.raises(ValueError, match="'optimizer' parameter.*Did you mean 'adam"):
        make_optimizer("adamww", stages, learning_rate=0.1)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_kernels_unless_the_user_chooses(stages, name):
    fused = make_optimizer(name, stages, learning_rate=0.1, weight_decay=0.01)
    assert all(bool(group["fused"]) == (name != "sgd") for group in fused.param_groups)
    params = {"foreach": False, **({"momentum": 0.9} if name == "sgd" else {})}
    plain = make_optimizer(name, stages, learning_rate=0.1, params=params)
    assert not any(group["fused"] for group in plain.param_groups)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_kernels_make_the_steps_of_torch_s_loop(name):
    def train(params):
        torch.manual_seed(0)
        layers = nn.Sequential(nn.Linear(7, 7), nn.Linear(7, 3))
        options = {"learning_rate": 0.05, "weight_decay": 0.1, "params": params}
        groups = [list(layers.named_parameters())]
        optimizer = make_optimizer(name, groups, **options)
        for step, inputs in enumerate(torch.rand(6, 4, 7)):
            optimizer.zero_grad()
            # The first layer is skipped in some steps, and has no gradient there.
            used = layers if step in (1, 2, 5) else layers[1:]
            used(inputs).square().sum().backward()
            optimizer.step()
        return [layer.weight for layer in layers]

    momentum = {"momentum": 0.9} if name == "sgd" else {}
    plain = train({"foreach": False, **momentum})
    torch.testing.assert_close(train(momentum), plain)
