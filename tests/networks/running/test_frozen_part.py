"""A pass that begins at the output of a layer."""

import pytest
import torch
from torch import nn

from skdeepfeat.networks import LayerOutputs, resolve_neck


def trained_from(name, stage, **described):
    neck = resolve_neck(name, weights="random", image_size=32, **described)
    body = neck.trainable()
    body.train_parts(range(stage, body.n_stages), freeze_statistics=True)
    return body


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        pytest.param("torchvision/densenet121", marks=pytest.mark.slow),
        "efficientnet_lite0",
    ],
)
def test_the_same_features_and_gradients(name):
    body = trained_from(name, 3)
    layer = body.last_frozen_layer()
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    whole, maps = body.forward_with_maps(images, [layer.name])
    whole.square().sum().backward()
    wanted = {n: p.grad for n, p in body.named_parameters() if p.grad is not None}
    body.zero_grad(set_to_none=True)
    body.begin_at(layer)
    found = body(LayerOutputs(maps[layer.name].detach()))
    found.square().sum().backward()
    torch.testing.assert_close(found, whole)
    assert wanted
    for parameter_name, parameter in body.named_parameters():
        if parameter_name in wanted:
            torch.testing.assert_close(parameter.grad, wanted[parameter_name])
        else:
            assert parameter.grad is None
    torch.testing.assert_close(body(images), whole)  # images are accepted as before


def test_frozen_modules_do_not_run():
    body = trained_from("resnet18", 4)
    layer = body.last_frozen_layer()
    body.begin_at(layer)
    modes = [module.training for module in body.modules()]
    calls = []
    for name in ("conv1", "layer1.0.conv1", "layer3", "layer4"):
        module = body.network.get_submodule(name)
        forward = type(module).forward

        def noted(self, x, name=name, forward=forward):
            calls.append(name)
            return forward(self, x)

        module.__class__ = type(type(module).__name__, (type(module),), {})
        type(module).forward = noted
    body(LayerOutputs(torch.rand(2, *layer.shape)))
    assert calls == ["layer4"]
    assert not any("forward" in vars(module) for module in body.network.modules())
    assert [module.training for module in body.modules()] == modes


def test_nothing_is_frozen_before_the_first_stage():
    assert trained_from("resnet18", 0).last_frozen_layer() is None
    body = trained_from("resnet18", 2)
    body.train_parts([])
    assert body.last_frozen_layer() is None


class Around(nn.Module):
    """What follows the second stage depends on the first one, too."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.third = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        first = self.first(x)
        last = self.third(self.second(first))
        return self.head(torch.cat([first.mean((2, 3)), last.mean((2, 3))], 1))


class Again(Around):
    """The first module of a stage runs once more behind it."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        maps = self.act(self.second(self.act(self.first(x))))
        return self.head(self.act(self.third(maps)).mean((2, 3)).repeat(1, 2))


class Shared(Around):
    """A trained module, whose last run is in the last stage, runs in the first, too."""

    def __init__(self, shared=None):
        super().__init__()
        shared = shared or nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Sequential(self.first, shared)
        self.third = nn.Sequential(self.third, shared)

    def forward(self, x):
        maps = self.third(self.second(self.first(x)))
        return self.head(maps.mean((2, 3)).repeat(1, 2))


class Tied(Shared):
    """Two modules of two stages share their weights."""

    def __init__(self):
        super().__init__(nn.ReLU())
        self.third = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        # Parameters are named after the module that was there first.
        second = self.second
        del self.second
        self.second = second
        self.second.weight = self.third.weight


class Centered(nn.Module):
    """What an image becomes depends on the others."""

    def forward(self, x):
        return x - x.mean(0)


class Noting(Shared):
    """The first stage leaves something to the last one, but not by an argument."""

    def __init__(self):
        super().__init__(nn.Identity())
        self.first.register_forward_hook(self.note)

    def note(self, module, args, output):
        self.noted = output.mean((2, 3))

    def forward(self, x):
        maps = self.third(self.second(self.first(x)))
        return self.head(torch.cat([maps.mean((2, 3)), self.noted], 1))


class NotingInside(Noting):
    """The hook is in a module that does not run at all if its stage is left out."""

    def __init__(self):
        super().__init__()
        self.first._forward_hooks.clear()
        self.first[0].register_forward_hook(self.note)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Around(), "depends on more"),
        (Again(), "runs again"),
        (Shared(), "weights that are trained"),
        (Tied(), "weights that are trained"),
        (Shared(nn.Dropout()), "training mode"),
        (Shared(nn.BatchNorm2d(4, affine=False)), "training mode"),
        (Shared(Centered()), "other images"),
        (Noting(), "depends on more"),
        (NotingInside(), "Sizes of tensors must match"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(type(value).__name__),
)
def test_networks_that_cannot_go_on_are_refused(network, message):
    preprocessing = {"resize": 32, "crop": (32, 32)}
    body = resolve_neck(network, preprocessing=preprocessing).trainable()
    body.train_parts([2])
    with pytest.raises((ValueError, RuntimeError), match=message):
        body.begin_at(body.last_frozen_layer())
    assert not any("forward" in vars(module) for module in body.network.modules())
    assert body(torch.rand(2, 3, 32, 32)).shape == (2, 8)


class InPlace(Around):
    """The output of the second stage is changed in place, and used twice."""

    def forward(self, x):
        maps = self.second(self.first(x))
        maps.add_(1)
        both = self.third(maps).mean((2, 3)), maps.mean((2, 3))
        return self.head(torch.cat(both, 1))


def test_work_in_place_changes_no_given_output():
    preprocessing = {"resize": 32, "crop": (32, 32)}
    body = resolve_neck(InPlace(), preprocessing=preprocessing).trainable()
    body.train_parts([2])
    layer = body.last_frozen_layer()
    body.begin_at(layer)
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    maps = body.network.second(body.network.first((images - body._mean) / body._std))
    maps = maps.detach().contiguous(memory_format=body._memory_format)
    for _ in range(2):
        torch.testing.assert_close(body(LayerOutputs(maps)), body(images))
