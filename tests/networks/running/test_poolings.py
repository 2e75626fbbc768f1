"""The neck with another pooling than the network's own, as timm's ``global_pool``."""

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from skdeepfeat._utils._digests import digest_file
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.running import _loaded_networks

CPU = torch.device("cpu")


def rows(model, pixels, **parameters):
    neck = resolve_neck(model, image_size=pixels.shape[1], **parameters)
    with neck.loaded(CPU) as run:
        found = run(pixels)
    assert [one.shape[1] for one in found] == neck.n_features()
    return found[0] if len(found) == 1 else found


def pooled(maps, pooling):
    """Return maps (n, channels, positions) pooled by hand."""
    if pooling == "gem":
        return maps.clamp(min=1e-6).pow(3).mean(-1).pow(1 / 3)
    return maps.amax(-1) if pooling == "max" else maps.mean(-1)


# ConvNeXt normalizes and MobileNetV3 has a convolution behind the pooling; Swin's maps
# have their channels last.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("test_efficientnet", 64),
        ("test_resnet", 64),
        ("test_convnext", 64),
        pytest.param("test_vit", 160, marks=pytest.mark.slow),
        ("mobilenetv3_small_050", 64),
        ("efficientnet_lite0", 64),
        pytest.param("swin_s3_tiny_224", 224, marks=pytest.mark.slow),
    ],
)
def test_timms_networks_are_as_made_with_it(
    name, size, randomise, saved, batch, normalised, assert_close
):
    if name not in timm.list_models():
        pytest.skip(f"this timm has no {name}")
    torch.manual_seed(0)
    plain = randomise(timm.create_model(name))
    made = timm.create_model(name, num_classes=0, global_pool="max").eval()
    state = plain.state_dict()
    if name == "test_vit":  # with this pooling timm moves the norm behind it
        made.norm, made.fc_norm = made.fc_norm, made.norm
    own = made.state_dict()
    made.load_state_dict({key: state[key] for key in own})
    config = plain.pretrained_cfg
    pixels = batch(2, size)
    with torch.no_grad():
        wanted = made(normalised(pixels, config["mean"], config["std"]))
    path = saved(plain)
    found = rows(f"timm/{name}", pixels, weights=path, pooling="max")
    assert_close(found, wanted)


@pytest.mark.parametrize(
    ("name", "last", "pooling"),
    [
        ("resnet18", "layer4", "max"),
        ("resnet18", "layer4", "gem"),
        ("mobilenet_v2", "features", "max"),  # pools with a function
        ("alexnet", "features", "max"),  # has layers behind a map of fixed size
        ("convnext_tiny", "features", "max"),  # normalizes behind the pooling
        pytest.param("swin_t", "permute", "gem", marks=pytest.mark.slow),
    ],
)
def test_torchvisions_last_map(name, last, pooling, batch, assert_close):
    pixels = batch(2, 64)
    found = rows(name, pixels, weights="random", pooling=pooling)
    neck = resolve_neck(
        name, weights="random", layer=last, pooling="flatten", image_size=64
    )
    shape = neck.probe.layers[last].shape
    _loaded_networks._entries.clear()
    maps = rows(name, pixels, weights="random", layer=last, pooling="flatten")
    maps = torch.from_numpy(maps).reshape(2, shape[0], -1)
    assert_close(found, pooled(maps, pooling))


@pytest.mark.parametrize("pooling", ["max", "gem", "cls"])
def test_tokens_of_a_transformer(pooling, batch, assert_close):
    pixels = batch(1, 224)
    network = small_transformer()
    found = rows(network, pixels, pooling=pooling)
    last = rows(network, pixels, layer="encoder", pooling="flatten")
    tokens = torch.from_numpy(last).reshape(1, 197, -1).transpose(1, 2)
    wanted = tokens[..., 0] if pooling == "cls" else pooled(tokens[..., 1:], pooling)
    assert_close(found, wanted)


def small_transformer():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.VisionTransformer(224, 16, 1, 2, 32, 64).eval()


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.Conv2d(6, 8, 3, 2)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.pool(self.body(x)).flatten(1))


def test_a_module_in_every_runtime_and_beside_other_layers(batch, assert_close):
    network, pixels = Own().eval(), batch(3, 32)
    [neck, maps, output] = rows(
        network, pixels, layer=["neck", "body.0", "output"], pooling="max"
    )
    assert_close(
        neck, torch.from_numpy(rows(network, pixels, layer="body", pooling="max"))
    )
    assert maps.shape == (3, 6)
    # What the network returns does not depend on how the neck is pooled.
    assert_close(output, torch.from_numpy(rows(network, pixels, layer="output")))
    one = resolve_neck(network, image_size=32, pooling="max")
    assert one.feature_name_prefixes() == ["own_neck_max"]
    assert one.outputs[0].source.name == "body"


def test_the_cache_tells_poolings_apart():
    described = [
        resolve_neck("efficientnet_lite0", pooling=pooling).descriptions(
            "float32", digest_file
        )[0]
        for pooling in ("auto", "max", "gem", "avg")
    ]
    poolings = [(one["layer"], one["pooling"]) for one in described]
    assert poolings == [
        ("neck", "auto"),
        ("neck", "max"),
        ("neck", "gem"),
        ("neck", "auto"),
    ]


def test_the_networks_pool_is_its_own_again(batch):
    network = timm.create_model("test_resnet").eval()
    pixels = batch(2, 64)
    before = rows(network, pixels)
    rows("timm/test_resnet", pixels, weights="random", pooling="max")
    both = rows(
        "timm/test_resnet",
        pixels,
        weights="random",
        pooling="max",
        layer=["neck", "output"],
    )
    plain = rows("timm/test_resnet", pixels, weights="random", layer=["neck", "output"])
    assert not np.allclose(both[0], plain[0])
    np.testing.assert_allclose(both[1], plain[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rows(network, pixels), before)


def test_where_there_is_nothing_to_pool():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="'pooling' .*'auto'.*map or tokens"):
        resolve_neck(flat, image_size=8, pooling="max")
    with pytest.raises(ValueError, match="'pooling' .*class token"):
        resolve_neck("resnet18", weights="random", pooling="cls")
