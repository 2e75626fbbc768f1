"""timm's networks against timm's own ways to take features."""

import copy

import pytest
import timm
import torch
import torchvision

from skdeepfeat.networks import list_layers, resolve_neck
from skdeepfeat.networks.sources import _timm

CPU = torch.device("cpu")

# timm's miniatures, and small members of families that differ in their layouts, one for
# each class of timm's.
FAST = [
    "test_vit",
    "test_convnext",
    "test_efficientnet",
    "test_byobnet",
    "test_nfnet",
    "test_mambaout",
    "lcnet_035",
]
SLOW = [
    "cait_xxs24_224",
    "deit_tiny_distilled_patch16_224",
    "mobilevit_xxs",
    "pvt_v2_b0",
    "coatnet_nano_rw_224",
    "convit_tiny",
    "densenet121",
    "edgenext_xx_small",
    "efficientformer_l1",
    "eva02_tiny_patch14_224",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "ghostnet_050",
    "hiera_tiny_224",
    "levit_128s",
    "mixer_s32_224",
    "mobilenetv3_small_050",
    "nest_tiny",
    "pit_ti_distilled_224",
    "poolformer_s12",
    "regnetx_002",
    "repvit_m0_9",
    "rexnet_100",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "tiny_vit_5m_224",
    "vit_small_patch14_reg4_dinov2",
    "volo_d1_224",
    "xcit_nano_12_p16_224",
]


# Of those whose own size, here 518 pixels, would only take longer.
IMAGE_SIZES = {"vit_small_patch14_reg4_dinov2": 70}


def create(name, **parameters):
    if name in IMAGE_SIZES:
        parameters["img_size"] = IMAGE_SIZES[name]
    return timm.create_model(name, **parameters)


def oracle(network, name, images):
    """Return what timm gives as neck, output, first and last map."""
    bare = create(name, num_classes=0)
    missing = bare.load_state_dict(network.state_dict(), strict=False).missing_keys
    assert not missing
    with torch.no_grad():
        neck = bare.eval()(images)
        again = network.forward_head(network.forward_features(images), pre_logits=True)
        torch.testing.assert_close(neck, again)
        output = network(images)
        if not hasattr(network, "forward_intermediates"):
            return neck, output, None, None  # in older versions of timm
        maps = network.forward_intermediates(
            images, intermediates_only=True, output_fmt="NCHW"
        )
    return neck, output, maps[0].mean((2, 3)), maps[-1].mean((2, 3))


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_layers_equal_timms(name, batch, normalised, randomise, saved, assert_close):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = randomise(create(name))
    parameters = {"weights": saved(network), "pooling": "avg"}
    parameters["image_size"] = IMAGE_SIZES.get(name)
    neck = resolve_neck(f"timm/{name}", layer=["output", -1, None, 0], **parameters)
    config = network.pretrained_cfg
    pixels = batch(2, *neck.preprocessing.crop)
    if name not in IMAGE_SIZES:
        assert neck.preprocessing.crop == config["input_size"][1:]
    images = normalised(pixels, config["mean"], config["std"])
    with neck.loaded(CPU) as run:
        output, last, rows, first = run(pixels)
    for found, wanted in zip(
        (rows, output, first, last), oracle(network, name, images), strict=True
    ):
        if wanted is not None:
            assert_close(found, wanted)
    assert neck.n_features() == [r.shape[1] for r in (output, last, rows, first)]
    # Without the output the network stops early; the rows are the same.
    neck = resolve_neck(f"timm/{name}", layer=[0, -1], **parameters)
    with neck.loaded(CPU) as run:
        again = run(pixels)
    assert_close(again[0], torch.from_numpy(first), 1e-6)
    assert_close(again[1], torch.from_numpy(last), 1e-6)


def test_class_and_prefix_tokens(batch, normalised, randomise, saved, assert_close):
    name = "deit_tiny_distilled_patch16_224"
    network = randomise(timm.create_model(name))
    path = saved(network)
    config = network.pretrained_cfg
    pixels = batch(2, 224)
    images = normalised(pixels, config["mean"], config["std"])
    with torch.no_grad():
        tokens = network.forward_features(images)
    wanted = {
        "auto": ("cls", tokens[:, 0]),
        "mean": ("mean", tokens[:, 2:].mean(1)),
        "gem": ("gem", (tokens[:, 2:].clamp(min=1e-6) ** 3).mean(1) ** (1 / 3)),
    }
    for pooling, (resolved, rows) in wanted.items():
        neck = resolve_neck(name, weights=path, layer="norm", pooling=pooling)
        assert neck.outputs[0].pooling == resolved
        with neck.loaded(CPU) as run:
            assert_close(run(pixels)[0], rows)
    patches = resolve_neck(name, weights=path, layer="patch_embed")
    assert patches.outputs[0].pooling == "mean"
    with torch.no_grad(), patches.loaded(CPU) as run:
        assert_close(run(pixels)[0], network.patch_embed(images).mean(1))


def test_registers_alone_are_no_class_token():
    name = "vit_medium_patch16_reg4_gap_256"
    neck = resolve_neck(name, weights="random", layer=-1)
    assert neck.outputs[0].pooling == "mean"
    assert neck.outputs[0].source.n_prefix_tokens == 4
    with pytest.raises(ValueError, match="'pooling' .* has no class token.*'cls'"):
        resolve_neck(name, weights="random", layer=-1, pooling="cls")


@pytest.mark.parametrize("size", [(96, 96), (64, 128)])
def test_position_embeddings_are_interpolated(
    size, batch, normalised, randomise, saved, assert_close
):
    network = randomise(timm.create_model("test_vit"))
    neck = resolve_neck("test_vit", weights=saved(network), image_size=size)
    config = network.pretrained_cfg
    state = {**config, "state_dict": network.state_dict()}
    resized = timm.create_model(
        "test_vit", pretrained=True, pretrained_cfg=state, img_size=size
    ).eval()
    pixels = batch(2, *size)
    images = normalised(pixels, config["mean"], config["std"])
    with torch.no_grad(), neck.loaded(CPU) as run:
        wanted = resized.forward_head(resized.forward_features(images), pre_logits=True)
        assert_close(run(pixels)[0], wanted)


def test_tags_choose_weights_and_preprocessing():
    names = [
        "vit_tiny_patch16_224.augreg_in21k",
        "resnet50.tv_in1k",
        "resnet50.a1_in1k",
    ]
    for name in names:
        neck = resolve_neck(name, layer="output")
        config = timm.get_pretrained_cfg(name)
        assert neck.n_features() == [config.num_classes]
        assert neck.preprocessing.mean == config.mean
        assert neck.spec.weights.repo == f"timm/{name}"
        assert neck.spec.model_name == name.partition(".")[0]
    by_weights = resolve_neck("timm/resnet50", weights="tv_in1k")
    assert by_weights.spec.weights == resolve_neck("resnet50.tv_in1k").spec.weights


def test_declared_stages_are_timms():
    layers = list_layers("timm/resnet50")
    numbered = layers[layers["stage"].notna()]
    assert numbered["name"].tolist() == ["act1", "layer1", "layer2", "layer3", "layer4"]


def test_renamed_networks_are_found_without_a_warning():
    old = "vit_base_patch16_224_in21k"
    assert timm.models.get_deprecated_models()[old]
    neck = resolve_neck(old)
    assert neck.spec.name == "timm/vit_base_patch16_224.augreg_in21k"


@pytest.mark.slow
def test_networks_without_a_head_give_their_output():
    neck = resolve_neck("timm/mobilenetv5_300m_enc", weights="random")
    assert neck.probe.neck.shape == neck.probe.output.shape


def test_torchvisions_weights_are_refused():
    # They were ignored.
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    with pytest.raises(ValueError, match="'weights' .* a tag of 'resnet18', .*V1"):
        resolve_neck("timm/resnet18", weights=weights)


@pytest.mark.parametrize("is_class", [False, True])
def test_networks_that_others_registered_have_to_be_passed(monkeypatch, is_class):
    from timm.models import _registry, register_model

    def strangers_network(pretrained=False, **options):
        raise AssertionError("nothing is built")

    if is_class:
        strangers_network = type("strangers_network", (torch.nn.Module,), {})
        strangers_network.__module__ = __name__
    # Tests in the same process do not see it.
    for name in ("_module_to_models", "_model_to_module", "_model_entrypoints"):
        monkeypatch.setattr(_registry, name, copy.deepcopy(getattr(_registry, name)))
    monkeypatch.setattr(_timm, "list_names", lambda tags=False: ("strangers_network",))
    register_model(strangers_network)
    message = r"'model'.* registered there.*timm.create_model\('strangers_network'\)"
    with pytest.raises(ValueError, match=message):
        resolve_neck("timm/strangers_network", weights="random")
