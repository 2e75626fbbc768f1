"""A user's own network, which stays as it was."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from skdeepfeat._utils._digests import digest_file
from skdeepfeat.networks import list_layers, resolve_neck
from skdeepfeat.networks.probing._fingerprint import digest_tensors

CPU = torch.device("cpu")
CALLS = []


class Tiny(nn.Module):
    """A network with everything that must not be disturbed."""

    def __init__(self, fail=False):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(8, 5)
        self.fail = fail

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        if self.fail and x.device.type != "meta":
            raise ValueError("broken")
        return self.fc(self.dropout(x))


@pytest.fixture
def tiny(randomise):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = randomise(Tiny())
    network.train()
    network.stem[1].eval()
    network.fc.requires_grad_(False)
    return network


def state_of(network):
    return (
        [(name, m.training) for name, m in network.named_modules()],
        [(name, id(p), p.requires_grad, p.device) for name, p in _tensors(network)],
        [p.detach().clone() for _, p in _tensors(network)],
        [
            (list(m._forward_hooks), list(m._forward_pre_hooks))
            for m in network.modules()
        ],
        digest_tensors(network),
    )


def _tensors(network):
    return [*network.named_parameters(), *network.named_buffers()]


def assert_unchanged(before, network):
    after = state_of(network)
    assert before[:2] == after[:2]
    assert before[3:] == after[3:]
    for one, other in zip(before[2], after[2], strict=True):
        assert torch.equal(one, other)


def rows_of(neck, pixels):
    with neck.loaded(CPU) as run:
        return run(pixels)


def test_neck_output_and_layers(tiny, batch, normalised, assert_close):
    before = state_of(tiny)
    pixels = batch(3, 32)
    neck = resolve_neck(tiny, layer=["output", None, "stem.1", "stem"], image_size=32)
    assert neck.feature_name_prefixes() == [
        "tiny_output",
        "tiny_neck",
        "tiny_stem.1_avg",
        "tiny_stem_avg",
    ]
    output, rows, normed, stem = rows_of(neck, pixels)
    assert_unchanged(before, tiny)
    reference = copy.deepcopy(tiny).eval()
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        maps = reference.stem(images)
        assert_close(output, reference(images))
        assert_close(rows, maps.mean((2, 3)))
        assert_close(stem, maps.mean((2, 3)))
        # The ReLU after it works in place; these rows are from before it.
        assert_close(normed, reference.stem[:2](images).mean((2, 3)))


def test_after_an_exception(tiny, batch):
    tiny.fail = True
    before = state_of(tiny)
    neck = resolve_neck(tiny, image_size=32)
    with pytest.raises(ValueError, match="broken"):
        rows_of(neck, batch(2, 32))
    assert_unchanged(before, tiny)


def test_the_users_hooks_stay_and_run(tiny, batch):
    def hook(module, args, output):
        CALLS.append(output.device.type)
        return output + 1

    handle = tiny.stem.register_forward_hook(hook)
    before = state_of(tiny)
    pixels = batch(2, 32)
    (with_hook,) = rows_of(resolve_neck(tiny, image_size=32), pixels)
    assert "cpu" in CALLS
    assert_unchanged(before, tiny)
    handle.remove()
    (without,) = rows_of(resolve_neck(tiny, image_size=32), pixels)
    np.testing.assert_allclose(with_hook, without + 1, rtol=1e-5)


def test_weights_are_shared_not_copied(tiny, batch):
    neck = resolve_neck(tiny, image_size=32)
    pointers = {p.data_ptr() for p in tiny.parameters()}
    with neck.loaded(CPU, n_images=2) as run:
        (one,) = run(batch(2, 32))
        assert {p.data_ptr() for p in run._network.network.parameters()} == pointers
    with neck.loaded(CPU, n_images=None) as run:  # many: its batch norm is folded
        run(batch(2, 32))
        used = {p.data_ptr() for p in run._network.network.parameters()}
        assert used - pointers and used & pointers
    with torch.no_grad():
        tiny.stem[1].bias.add_(1)
    (two,) = rows_of(neck, batch(2, 32))
    assert not np.allclose(one, two)


def test_nothing_keeps_the_module_alive(batch):
    network = Tiny()
    neck = resolve_neck(network, image_size=32)
    rows_of(neck, batch(1, 32))
    gone = weakref.ref(network)
    del network, neck
    gc.collect()
    assert gone() is None


def test_descriptions_follow_the_weights(tiny):
    def described(network):
        neck = resolve_neck(network, image_size=32).identified(CPU)
        return neck.descriptions("float32", digest_file)

    first = described(tiny)
    assert described(copy.deepcopy(tiny)) == first
    with torch.no_grad():
        tiny.fc.bias.add_(1)
    assert described(tiny) != first


def test_an_output_that_is_no_linear_layers(batch, normalised, assert_close):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * 64, 7), nn.Linear(7, 4), nn.Sigmoid()
        )
    pixels = batch(2, 8)
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    neck = resolve_neck(network, image_size=8)
    with torch.no_grad():
        assert_close(rows_of(neck, pixels)[0], network(images))


def test_outputs_that_are_not_a_tensor(batch):
    class Rich(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()
            self.text = Text()

        def forward(self, x):
            one, two = self.pair(x)
            self.text(x)
            return {"note": "text", "logits": [two.mean((2, 3))], "map": one}

    class Pair(nn.Module):
        def forward(self, x):
            return x * 2, x * 3

    class Text(nn.Module):
        def forward(self, x):
            return "no tensor"

    neck = resolve_neck(Rich(), layer=["output", "pair"], image_size=8)
    pixels = batch(2, 8)
    output, pair = rows_of(neck, pixels)
    np.testing.assert_allclose(output / 3, pair / 2, rtol=1e-5)
    assert "text" not in list_layers(Rich(), image_size=8)["name"].tolist()
    with pytest.raises(ValueError, match="'layer' .*Got 'text'"):
        resolve_neck(Rich(), layer="text", image_size=8)
    with pytest.raises(TypeError, match="'model' .*a tensor.*Text returns .*'str'"):
        resolve_neck(Text(), image_size=8)


def test_networks_that_look_at_numbers(batch):
    class Curious(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            x = self.convolution(x)
            return x * (2 if float(x.sum()) > 1e9 else 1)

    neck = resolve_neck(Curious(), image_size=8)
    assert neck.n_features() == [4]
    assert rows_of(neck, batch(2, 8))[0].shape == (2, 4)


def test_views_that_need_contiguous_images(batch, normalised, assert_close):
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            x = self.convolution(x)
            return x.view(len(x), -1)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Views()
    neck = resolve_neck(network, image_size=8)
    pixels = batch(2, 8)
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        assert_close(rows_of(neck, pixels)[0], network(images))


def test_double_precision_modules(tiny, batch):
    pixels = batch(2, 32)
    (single,) = rows_of(resolve_neck(tiny, image_size=32), pixels)
    (double,) = rows_of(resolve_neck(tiny.double(), image_size=32), pixels)
    assert double.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=1e-4)


def test_generic_tokens(batch, normalised, assert_close):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 6, 4, stride=4)
            self.cls_token = nn.Parameter(torch.full((1, 1, 6), 3.0))
            self.blocks = nn.Sequential(*(nn.Linear(6, 6) for _ in range(3)))
            self.head = nn.Linear(6, 2)

        def forward(self, x):
            x = self.embed(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
            return self.head(self.blocks(x)[:, 0])

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Tokens()
    pixels = batch(2, 16)
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    layers = list_layers(network, image_size=16)
    numbered = layers[layers["stage"].notna()]
    assert numbered["name"].tolist() == ["blocks.0", "blocks.1", "blocks.2"]
    extracted = {}
    network.blocks.register_forward_hook(
        lambda module, args, output: extracted.update(tokens=output)
    )
    with torch.no_grad():
        network(images)
    for pooling, wanted in {
        "auto": extracted["tokens"][:, 0],
        "mean": extracted["tokens"][:, 1:].mean(1),
    }.items():
        neck = resolve_neck(network, layer=2, pooling=pooling, image_size=16)
        assert_close(rows_of(neck, pixels)[0], wanted)


def test_modules_that_cannot_be_copied():
    class Sealed(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 3)

        def __deepcopy__(self, memo):
            raise RuntimeError("sealed")

        def forward(self, x):
            return self.convolution(x)

    with pytest.raises(TypeError, match="'model' .*deepcopy.*Sealed cannot be: sealed"):
        resolve_neck(Sealed())


def test_results_kept_as_attributes_do_not_hinder(tiny, batch):
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            self.last = self.convolution(x)
            return self.last

    network = Keeps()
    network(torch.rand(1, 3, 8, 8))  # leaves a tensor that belongs to a graph
    assert rows_of(resolve_neck(network, image_size=8), batch(2, 8))[0].shape == (2, 4)


def test_weights_parameter_belongs_to_names(tiny, tmp_path):
    for weights in (None, "IMAGENET1K_V1", tmp_path / "w.pth"):
        with pytest.raises(ValueError, match="'weights' .*has its weights already"):
            resolve_neck(tiny, weights=weights)


def test_sizes_a_network_does_not_take():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    assert resolve_neck(network, image_size=8).n_features() == [192]
    with pytest.raises(ValueError, match="'image_size' .*'Sequential' can take"):
        resolve_neck(network, image_size=9)
