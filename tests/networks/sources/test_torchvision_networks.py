"""torchvision's networks against torchvision's own feature extraction."""

import re

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from skdeepfeat.networks import list_layers, list_models, resolve_neck

CPU = torch.device("cpu")

# One small member of each family: where its head is, and a size it takes.
FAMILIES = {
    "googlenet": ("fc", 64),
    "inception_v3": ("fc", 96),
    "resnet18": ("fc", 64),
    "densenet121": ("classifier", 64),
    "mobilenet_v2": ("classifier.1", 64),
    "mobilenet_v3_small": ("classifier.3", 64),
    "efficientnet_b0": ("classifier.1", 64),
    "convnext_tiny": ("classifier.2", 64),
    "swin_t": ("head", 64),
    "swin_v2_t": ("head", 64),
    "regnet_y_400mf": ("fc", 64),
    "shufflenet_v2_x0_5": ("fc", 64),
    "mnasnet0_5": ("classifier.1", 64),
    "maxvit_t": ("classifier.5", 224),
}
# Large files: random weights from the seed instead.
SEEDED = {
    "alexnet": ("classifier.6", 96),
    "vgg11_bn": ("classifier.6", 64),
    "vit_b_16": ("heads.head", 224),
    "resnext50_32x4d": ("fc", 64),
}

LONG = {
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "regnet_y_400mf",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_16",
}


def mark(name):
    return pytest.param(name, marks=pytest.mark.slow) if name in LONG else name


# Their necks are compared together with their maps.
ALSO_MAPS = {
    "resnet18",
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "swin_t",
}

MAPS = {
    "resnet18": {
        "relu": "relu",
        "layer1": "layer1",
        "layer2.1.conv2": "layer2.1.conv2",
        "layer4": "layer4",
    },
    "densenet121": {
        "features.denseblock1": "features.denseblock1.cat",
        "features.norm5": "features.norm5",
    },
    "efficientnet_b0": {"features.3": "features.3.1.add", "features.8": "features.8"},
    "mobilenet_v3_small": {"features.4.block.2": "features.4.block.2"},
    "regnet_y_400mf": {"trunk_output.block2": "trunk_output.block2"},
}


def build(name, **options):
    if name in ("googlenet", "inception_v3"):
        options = {"transform_input": True, "aux_logits": True, "init_weights": False}
    return torchvision.models.get_model(name, weights=None, **options)


def without_head(network, head):
    parent, _, leaf = head.rpartition(".")
    setattr(network.get_submodule(parent), leaf, nn.Identity())
    return network


def rows_of(neck, pixels):
    with neck.loaded(CPU) as run:
        return run(pixels)


@pytest.mark.parametrize(
    "name", [mark(name) for name in FAMILIES if name not in ALSO_MAPS]
)
def test_neck_equals_the_network_without_its_head(
    name, batch, normalised, randomise, saved, assert_close
):
    head, size = FAMILIES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = randomise(build(name))
    neck = resolve_neck(name, weights=saved(network), image_size=size)
    pixels = batch(2, size)
    weights = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    images = normalised(pixels, weights.mean, weights.std)
    (rows,) = rows_of(neck, pixels)
    with torch.no_grad():
        wanted = without_head(network, head)(images)
    assert_close(rows, wanted)
    assert neck.n_features() == [rows.shape[1]]
    assert neck.feature_name_prefixes() == [f"{name}_neck"]


@pytest.mark.parametrize("name", [mark(name) for name in SEEDED])
def test_random_weights_are_the_seeds(name, batch, normalised, assert_close):
    head, size = SEEDED[name]
    before = torch.get_rng_state()
    neck = resolve_neck(
        name,
        weights="random",
        random_state=7,
        image_size=None if size == 224 else size,
        layer=["output", "neck"],
    )
    pixels = batch(2, size)
    output, rows = rows_of(neck, pixels)
    assert torch.equal(before, torch.get_rng_state())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = build(name).eval()
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        if name != "vit_b_16":  # whose head is initialised with zeros
            assert_close(output, network(images))
        assert_close(rows, without_head(network, head)(images))


def test_squeezenet_pools_the_input_of_its_last_convolution(
    batch, normalised, randomise, saved, assert_close
):
    network = randomise(build("squeezenet1_1"))
    neck = resolve_neck(
        "squeezenet1_1", weights=saved(network), image_size=64, layer=["output", None]
    )
    pixels = batch(2, 64)
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    output, rows = rows_of(neck, pixels)
    with torch.no_grad():
        assert_close(rows, network.features(images).mean((2, 3)))
        assert_close(output, network(images))
    assert neck.feature_name_prefixes()[1] == "squeezenet1_1_neck_avg"


POOL = {
    "avg": lambda x: x.mean((2, 3)),
    "max": lambda x: x.flatten(2).max(2).values,
    "gem": lambda x: (x.clamp(min=1e-6) ** 3).mean((2, 3)) ** (1 / 3),
    "flatten": lambda x: x.flatten(1),
}


@pytest.mark.parametrize("name", [mark(name) for name in MAPS])
def test_maps_equal_torchvisions_feature_extractor(
    name, batch, normalised, randomise, saved, assert_close
):
    network = randomise(build(name))
    nodes = MAPS[name]
    path = saved(network)
    pixels = batch(2, 64)
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    extractor = create_feature_extractor(network, {v: k for k, v in nodes.items()})
    with torch.no_grad():
        wanted = extractor(images)
        bare = without_head(network, FAMILIES[name][0])(images)
    layers = [*nodes, None]
    for pooling, pool in POOL.items():
        neck = resolve_neck(
            name, weights=path, image_size=64, layer=layers, pooling=pooling
        )
        *maps, rows = rows_of(neck, pixels)
        for layer, found in zip(nodes, maps, strict=True):
            assert_close(found, pool(wanted[layer]))
        prefixes = [f"{name}_{layer}_{pooling}" for layer in nodes]
        if pooling in ("max", "gem"):  # of the last map, see test_neck_pooling.py
            prefixes.append(f"{name}_neck_{pooling}")
        else:
            assert_close(rows, bare)
            prefixes.append(f"{name}_neck")
        assert neck.feature_name_prefixes() == prefixes


def test_swin_maps_are_pooled_over_space_not_channels(
    batch, normalised, randomise, saved, assert_close
):
    network = randomise(build("swin_t"))
    layers = ["features.1", "features.3", "norm", "permute", "neck"]
    neck = resolve_neck("swin_t", weights=saved(network), image_size=64, layer=layers)
    pixels = batch(2, 64)
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    found = rows_of(neck, pixels)
    with torch.no_grad():
        x = network.features[:2](images)
        assert_close(found[0], x.mean((1, 2)))
        x = network.features[2:4](x)
        assert_close(found[1], x.mean((1, 2)))
        x = network.norm(network.features[4:](x))
        assert_close(found[2], x.mean((1, 2)))
        assert_close(found[3], x.mean((1, 2)))
        assert_close(found[4], without_head(network, "head")(images))


@pytest.mark.slow
def test_vision_transformer_tokens(batch, normalised, assert_close):
    layer = "encoder.layers.encoder_layer_1"
    pixels = batch(2, 224)
    images = normalised(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build("vit_b_16").eval()
    extractor = create_feature_extractor(
        network, {"encoder.layers.encoder_layer_1.add_1": "tokens"}
    )
    with torch.no_grad():
        tokens = extractor(images)["tokens"]
    wanted = {
        "auto": tokens[:, 0],
        "cls": tokens[:, 0],
        "mean": tokens[:, 1:].mean(1),
        "avg": tokens[:, 1:].mean(1),
        "max": tokens[:, 1:].amax(1),
        "flatten": tokens.flatten(1),
    }
    for pooling, rows in wanted.items():
        neck = resolve_neck("vit_b_16", weights="random", layer=layer, pooling=pooling)
        assert_close(rows_of(neck, pixels)[0], rows)


@pytest.mark.parametrize(
    ("name", "stages"),
    {
        "resnet50": ["relu", "layer1", "layer2", "layer3", "layer4"],
        "densenet121": [
            "features.relu0",
            "features.denseblock1",
            "features.denseblock2",
            "features.denseblock3",
            "features.norm5",
        ],
        "efficientnet_b0": [f"features.{i}" for i in (1, 2, 3, 5, 8)],
        "convnext_tiny": [f"features.{i}" for i in (1, 3, 5, 7)],
        "inception_v3": [
            "Conv2d_2b_3x3",
            "Conv2d_4a_3x3",
            "Mixed_5d",
            "Mixed_6e",
            "Mixed_7c",
        ],
        "vgg11_bn": [f"features.{i}" for i in (2, 6, 13, 20, 27, 28)],
        "swin_t": ["features.1", "features.3", "features.5", "permute"],
        "vit_b_16": [f"encoder.layers.encoder_layer_{i}" for i in range(12)],
        "regnet_y_400mf": ["stem", *(f"trunk_output.block{i}" for i in (1, 2, 3, 4))],
    }.items(),
)
def test_stages(name, stages):
    layers = list_layers(name)
    numbered = layers[layers["stage"].notna()].sort_values("stage")
    assert numbered["name"].tolist() == stages
    assert numbered["stage"].tolist() == list(range(len(stages)))
    small = resolve_neck(name, layer=[0, -1])
    assert [one.layer for one in small.outputs] == [stages[0], stages[-1]]


def test_stage_numbers_do_not_move_with_the_image_size():
    neck = resolve_neck("resnet18", layer=[1, 4], image_size=32)
    assert [one.layer for one in neck.outputs] == ["layer1", "layer4"]


# Of each family one, and those of which each has an image size of its own.
NAMES = list_models(source="torchvision")
DESCRIBED = {name for name in NAMES if name.startswith("efficientnet_b")}
DESCRIBED |= set({re.split(r"[\d_]", name)[0]: name for name in NAMES}.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_every_network_is_described_without_weights(name):
    neck = resolve_neck(name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    # torchvision's own figure, multiply-adds in units of 1e9.
    cost = neck.probe.total_cost / 2e9
    assert cost == pytest.approx(weights.meta["_ops"], rel=0.03, abs=0.002)
    preset = weights.transforms()
    assert neck.preprocessing.crop == (preset.crop_size[0],) * 2
    assert neck.preprocessing.resize == preset.resize_size[0]
    assert neck.preprocessing.mean == tuple(preset.mean)
    assert resolve_neck(name, layer="output").n_features() == [1000]
    head = neck.probe.layers[neck.probe.neck_module].n_parameters
    has_bias = name != "maxvit_t"
    assert head == 1000 * (neck.n_features()[0] + has_bias)
