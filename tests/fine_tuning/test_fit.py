"""How a fit wires its parts: which weights decay in phase two."""

import numpy as np
import pytest
import timm
import torchvision
from timm.optim import param_groups_weight_decay

from skdeepfeat import FineTuneClassifier
from skdeepfeat._utils._random import seeded
from skdeepfeat.fine_tuning._body_phase import make_training_run
from skdeepfeat.fine_tuning._fit import Fit
from skdeepfeat.fine_tuning._fit_settings import FitSettings

SIZE = 32


def small_torchvision(name):
    """Return one of torchvision's transformers, with few and narrow layers."""
    models = torchvision.models
    if name == "vit":
        return models.VisionTransformer(
            image_size=SIZE, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16,
            mlp_dim=32,
        )  # fmt: skip
    block = {
        "swin": models.swin_transformer.SwinTransformerBlock,
        "swin_v2": models.swin_transformer.SwinTransformerBlockV2,
    }.get(name)
    if block:
        merging = models.swin_transformer.PatchMergingV2 if name == "swin_v2" else None
        return models.SwinTransformer(
            patch_size=[4, 4], embed_dim=12, depths=[2, 1], num_heads=[2, 2],
            window_size=[4, 4], block=block,
            **({"downsample_layer": merging} if merging else {}),
        )  # fmt: skip
    setting = models.convnext.CNBlockConfig
    return models.ConvNeXt([setting(12, 16, 1), setting(16, None, 1)])


def decayed_names(network):
    """Return the names of the parameters that phase two trains, by their decay."""
    images = np.zeros((4, SIZE, SIZE, 3), np.uint8)
    estimator = FineTuneClassifier(
        network, preprocessing={"resize": SIZE, "crop": (SIZE, SIZE)}, cache=None,
        weight_decay=0.25, device="cpu", random_state=0,
    )  # fmt: skip
    data = estimator._prepare(images, np.array([0, 1, 0, 1]))
    fit = Fit(estimator, data, FitSettings.of(estimator), continues=False)
    rows, _ = fit.prepare_head()
    _, run = make_training_run(fit, len(rows))
    decay_of = {
        id(parameter): group["weight_decay"]
        for group in run.optimizer.param_groups
        for parameter in group["params"]
    }
    # The body's without where it hangs in the model, the head's with it.
    names = {0.0: set(), 0.25: set()}
    for name, parameter in run.model.named_parameters():
        if parameter.requires_grad or id(parameter) in decay_of:
            names[decay_of[id(parameter)]].add(name.removeprefix("neck.network."))
    return names


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"img_size": SIZE, "depth": 2}),
        ("deit_tiny_distilled_patch16_224", {"img_size": SIZE, "depth": 1}),
        (
            "swin_tiny_patch4_window7_224",
            {
                "img_size": SIZE, "depths": (1, 1), "num_heads": (2, 2),
                "embed_dim": 16, "window_size": 4,
            },
        ),
        (
            "swinv2_tiny_window8_256",
            {
                "img_size": SIZE, "depths": (1, 1), "num_heads": (2, 2),
                "embed_dim": 16, "window_size": 4,
            },
        ),
        ("convnext_atto", {}),
    ],
)  # fmt: skip
def test_timms_networks_are_exempt_from_decay_as_timm_does_it(name, options):
    with seeded(0):
        network = timm.create_model(name, **options)
    listed = getattr(network, "no_weight_decay", set)()
    groups = param_groups_weight_decay(network, 0.25, no_weight_decay_list=listed)
    decay_of = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    wanted = {0.0: set(), 0.25: set()}
    for key, parameter in network.named_parameters():
        wanted[decay_of[id(parameter)]].add(key)
    found = decayed_names(network)
    assert found[0.25] - {"head.0.weight"} <= wanted[0.25]
    # Older versions of timm forget the scales of Swin V2.
    exempt = {key for key in found[0.0] if not key.endswith("logit_scale")}
    assert exempt - {"head.0.bias"} <= wanted[0.0]
    # All but the old head, which does not learn.
    rest = (wanted[0.0] | wanted[0.25]) - (found[0.0] | found[0.25])
    assert all(key.startswith("head") for key in rest)


@pytest.mark.parametrize(
    ("name", "exempt"),
    [
        ("vit", {"class_token", "encoder.pos_embedding"}),
        (
            "swin",
            {
                "features.1.0.attn.relative_position_bias_table",
                "features.1.1.attn.relative_position_bias_table",
                "features.3.0.attn.relative_position_bias_table",
            },
        ),
        (
            "swin_v2",
            {
                "features.1.0.attn.logit_scale",
                "features.1.1.attn.logit_scale",
                "features.3.0.attn.logit_scale",
            },
        ),
        ("convnext", {"features.1.0.layer_scale", "features.3.0.layer_scale"}),
    ],
)
def test_embeddings_of_torchvisions_transformers_do_not_decay(name, exempt):
    with seeded(0):
        network = small_torchvision(name)
    found = decayed_names(network)
    shapes = {key: p.ndim for key, p in network.named_parameters()}
    not_vectors = {key for key in found[0.0] if shapes.get(key, 1) > 1}
    assert not_vectors == exempt
    assert all(shapes.get(key, 2) > 1 for key in found[0.25])
    assert len(found[0.25]) > 4
