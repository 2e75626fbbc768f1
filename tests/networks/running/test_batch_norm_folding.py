"""Batch norms folded into convolutions: the same rows with fewer operations."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.running import _torch_runtime

CPU = torch.device("cpu")
FEW, MANY = 3, None


@pytest.fixture
def n_norms(monkeypatch):
    """Returns how many batch norms were computed since it was last called."""
    calls = []
    original = functional.batch_norm

    def counting(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(functional, "batch_norm", counting)

    def count():
        n = len(calls)
        calls.clear()
        return n

    return count


def pixels_of(size, n=5):
    height, width = (size, size) if isinstance(size, int) else size
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@contextlib.contextmanager
def plain_and_folded(neck, precision="float32"):
    with (
        neck.loaded(CPU, precision, n_images=FEW) as plain,
        neck.loaded(CPU, precision, n_images=MANY) as folded,
    ):
        yield plain, folded


def assert_same(found, wanted, tolerance=1e-5):
    for rows, expected in zip(found, wanted, strict=True):
        scale = np.abs(expected).max()
        assert scale > 0
        np.testing.assert_allclose(rows, expected, rtol=0, atol=tolerance * scale)


def shake_norms(network):
    """Give batch norms something to do: new ones multiply by 1 and add 0."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                if tensor is not None:
                    tensor.data.normal_(generator=generator)
            for tensor in (module.running_var, module.weight):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 2, generator=generator)
    return network


def random_network(name):
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return shake_norms(torchvision.models.get_model(name, weights=None))


@pytest.mark.parametrize(
    ("name", "n_left"),
    [
        ("resnet18", 0),
        ("mobilenet_v3_small", 0),
        ("shufflenet_v2_x0_5", 0),
        ("regnet_y_400mf", 0),
        ("densenet121", 62),  # there, most norms come before the convolution
    ],
)
def test_torchvision_networks_give_the_same_rows(name, n_left, n_norms):
    neck = resolve_neck(random_network(name), image_size=64)
    with plain_and_folded(neck) as (plain, folded):
        folded(pixels_of(64))
        n_norms()
        found = folded(pixels_of(64))
        assert n_norms() == n_left
        assert_same(found, plain(pixels_of(64)))
        assert n_norms() > n_left


def test_the_installed_network_keeps_its_activations(n_norms):
    # Its norms are timm's, which contain them.
    neck = resolve_neck(layer=[0, "blocks.2.0.bn2", None, "output"], image_size=96)
    with plain_and_folded(neck) as (plain, folded):
        folded(pixels_of(96))
        n_norms()
        found = folded(pixels_of(96))
        assert n_norms() == 0
        assert_same(found, plain(pixels_of(96)))


def test_layers_inside_a_norm_can_still_be_wanted(n_norms):
    neck = resolve_neck(layer=["bn1", "bn1.act"], image_size=96)
    with plain_and_folded(neck) as (plain, folded):
        assert_same(folded(pixels_of(96)), plain(pixels_of(96)))
        n_norms()
        folded(pixels_of(96))
        assert n_norms() == 0


def test_the_output_of_a_convolution_stays_when_it_is_wanted(n_norms):
    layers = ["conv1", "layer1.0.conv2", "layer1.0.bn2"]
    neck = resolve_neck(random_network("resnet18"), layer=layers, image_size=64)
    with plain_and_folded(neck) as (plain, folded):
        folded(pixels_of(64))
        n_norms()
        found = folded(pixels_of(64))
        assert n_norms() == 2
        assert_same(found, plain(pixels_of(64)), tolerance=1e-6)


def test_few_images_are_run_as_the_network_is(n_norms):
    neck = resolve_neck(random_network("resnet18"), image_size=64)
    with neck.loaded(CPU, n_images=FEW) as run:
        n_norms()  # those of finding out what its layers are
        run(pixels_of(64))
    assert n_norms() == 20


@pytest.mark.parametrize(("n_images", "n_left"), [(63, 20), (64, 0)])
def test_folding_goes_by_the_number_of_pixels(n_images, n_left, n_norms):
    neck = resolve_neck("resnet18", weights="random")
    with neck.loaded(CPU, n_images=n_images) as run:
        run(pixels_of(224, 1))
        n_norms()
        run(pixels_of(224, 1))
    assert n_norms() == n_left


def test_the_users_network_stays_as_it_is(n_norms):
    network = random_network("resnet18")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with resolve_neck(network, image_size=64).loaded(CPU) as run:
        run(pixels_of(64))
        n_norms()
        run(pixels_of(64))
        assert n_norms() == 0
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert isinstance(network.bn1, nn.BatchNorm2d)
    assert not network.conv1._forward_hooks
    assert network.conv1.bias is None


def test_the_networks_that_are_kept_stay_as_they_are(n_norms):
    neck = resolve_neck("resnet18", weights="random", image_size=64)
    with neck.loaded(CPU, n_images=FEW) as run:
        wanted = run(pixels_of(64))
    with neck.loaded(CPU, n_images=MANY) as run:
        run(pixels_of(64))
        n_norms()
        run(pixels_of(64))
        assert n_norms() == 0
    with neck.loaded(CPU, n_images=FEW) as run:
        np.testing.assert_array_equal(run(pixels_of(64)), wanted)


def test_bfloat16_differs_no_more_than_it_does_anyway(n_norms):
    neck = resolve_neck(random_network("resnet18"), image_size=64)
    with neck.loaded(CPU, n_images=FEW) as run:
        [wanted] = run(pixels_of(64))
    distances, counts = [], []
    with plain_and_folded(neck, "bfloat16") as runs:
        for run in runs:
            [rows] = run(pixels_of(64))
            n_norms()
            run(pixels_of(64))
            counts.append(n_norms())
            distances.append(np.linalg.norm(rows - wanted) / np.linalg.norm(wanted))
    # Whatever the number of images: rows of either kind would be other rows.
    assert counts == [0, 0]
    few, many = distances
    assert 1e-4 < few == many < 0.02


class Block(nn.Module):
    """A convolution and a norm, between which something happens or not."""

    convolution_type = nn.Conv2d
    norm_options = {}

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stem = self.convolution_type(3, 8, 3, bias=False)
            self.again = self.convolution_type(8, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8, **self.norm_options)
            self.head = nn.Linear(8, 4)
        shake_norms(self)

    def forward(self, images):
        return self.head(self.maps(images).mean((2, 3)))


class Plain(Block):
    def maps(self, images):
        return torch.relu(self.norm(self.stem(images)))


class WithoutWeights(Plain):
    norm_options = {"affine": False}


class WithoutStatistics(Plain):
    norm_options = {"track_running_stats": False}


class UsedTwice(Block):
    def maps(self, images):
        maps = self.stem(images)
        return torch.relu(self.norm(maps) + maps)


class ConvolutionCalledTwice(Block):
    def maps(self, images):
        maps = self.again(self.stem(images))
        return torch.relu(self.norm(self.again(maps)))


class NormCalledTwice(Block):
    def maps(self, images):
        return torch.relu(self.norm(self.again(self.norm(self.stem(images)))))


class ChangedInPlace(Block):
    def maps(self, images):
        return self.norm(self.stem(images).relu_())


class Hooked(Plain):
    def __init__(self):
        super().__init__()
        self.norm.register_forward_hook(lambda module, args, output: output * 2)


class Standardised(Plain):
    """Computes with other weights than it holds, as timm's ScaledStdConv2d does."""

    class convolution_type(nn.Conv2d):
        def forward(self, images):
            weight = self.weight / self.weight.std((1, 2, 3), keepdim=True)
            return functional.conv2d(images, weight, self.bias)


@pytest.mark.parametrize(
    ("kind", "n_left"),
    [
        (Plain, 0),
        (WithoutWeights, 0),
        (WithoutStatistics, 1),
        (UsedTwice, 1),
        (ConvolutionCalledTwice, 1),
        (NormCalledTwice, 2),
        (ChangedInPlace, 1),
        (Hooked, 1),
        (Standardised, 1),
    ],
)
def test_rows_are_the_same_whatever_a_network_does(kind, n_left, n_norms):
    neck = resolve_neck(kind(), layer=["output", "norm"], image_size=32)
    with plain_and_folded(neck) as (plain, folded):
        folded(pixels_of(32))
        n_norms()
        found = folded(pixels_of(32))
        assert n_norms() == n_left
        assert_same(found, plain(pixels_of(32)))


def test_a_wanted_container_keeps_what_its_convolution_gives(n_norms):
    class Contained(Plain):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(self.stem)

    neck = resolve_neck(Contained(), layer=["stem", "output"], image_size=32)
    with plain_and_folded(neck) as (plain, folded):
        assert_same(folded(pixels_of(32)), plain(pixels_of(32)))
        n_norms()
        folded(pixels_of(32))
        assert n_norms() == 1


def test_lack_of_memory_while_folding_loses_nothing(monkeypatch, n_norms):
    def fail(*args, **kwargs):
        raise torch.OutOfMemoryError("no memory for the copy")

    neck = resolve_neck(Plain(), image_size=32)
    with plain_and_folded(neck) as (plain, folded):
        monkeypatch.setattr(_torch_runtime, "fold_batch_norms", fail)
        sizes = []
        queue = folded._network.queue
        monkeypatch.setattr(
            folded._network,
            "queue",
            lambda batch: sizes.append(len(batch)) or queue(batch),
        )
        assert_same(folded(pixels_of(32)), plain(pixels_of(32)))
    assert sizes == [5]  # the batch itself had room


class ReadsItsNorm(Plain):
    def maps(self, images):
        return super().maps(images.to(self.norm.weight.dtype))


class GoesByKind(Block):
    def maps(self, images):
        for module in (self.stem, self.norm):
            images = self.run(module, images)
        return images

    def run(self, module, images):
        if isinstance(module, nn.BatchNorm2d):
            return module(images)
        return functional.conv2d(images, module.weight)


class GivesTwo(Plain):
    class convolution_type(nn.Conv2d):
        def forward(self, images):
            return super().forward(images), 1

    def maps(self, images):
        maps, _ = self.stem(images)
        return torch.relu(self.norm(maps))


@pytest.mark.parametrize("kind", [ReadsItsNorm, GoesByKind, GivesTwo])
def test_a_network_that_cannot_do_without_its_norms_keeps_them(kind, n_norms, caplog):
    neck = resolve_neck(kind(), layer="output", image_size=32)
    with plain_and_folded(neck) as (plain, folded):
        with caplog.at_level("INFO", "skdeepfeat"):
            found = folded(pixels_of(32))
        assert_same(found, plain(pixels_of(32)), tolerance=1e-6)
        n_norms()
        folded(pixels_of(32))
        assert n_norms() == 1
    assert ("are not folded" in caplog.text) == (kind is ReadsItsNorm)


class NeedsOrder(Plain):
    def forward(self, images):
        maps = self.maps(images)
        return self.head(maps.view(len(maps), 8, -1).mean(-1))


def test_channels_first_are_folded_too(n_norms):
    neck = resolve_neck(NeedsOrder(), layer="output", image_size=32)
    with plain_and_folded(neck) as (plain, folded):
        assert_same(folded(pixels_of(32)), plain(pixels_of(32)))
        n_norms()
        folded(pixels_of(32))
        assert n_norms() == 0
