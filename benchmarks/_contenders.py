"""Features of the same files in the ways that people get them today, and in ours.

Each contender comes in two parts: imports, which are not timed, and the work, which is:
from the construction of the network with its weights to the array of features.
"""

import pathlib
import time

from _common import count_rows, count_runs, serve
from PIL import Image


class ImageFiles:
    """The dataset that everybody writes: a list of paths and a transform."""

    def __init__(self, paths, transform):
        self.paths = paths
        self.transform = transform

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return self.transform(Image.open(self.paths[i]).convert("RGB"))


def _make_network(job):
    """Return the network without its head, and the transform that belongs to it."""
    import timm
    import torch
    import torchvision

    if job["network"] == "resnet50":
        network = torchvision.models.resnet50()
        path = pathlib.Path(job["folder"], "weights.pth")
        network.load_state_dict(torch.load(path, weights_only=True))
        network.fc = torch.nn.Identity()
        weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
        return network, weights.transforms()
    name = f"local-dir:{job['folder']}"
    network = timm.create_model(name, pretrained=True, num_classes=0)
    config = timm.data.resolve_model_data_config(network)
    return network, timm.data.create_transform(**config, is_training=False)


def prepare_loop(job):
    """Return the plain loop over a DataLoader with `job["num_workers"]` workers."""
    import torch

    def extract():
        network, transform = _make_network(job)
        network = network.eval().to(job["device"])
        loader = torch.utils.data.DataLoader(
            ImageFiles(job["paths"], transform),
            batch_size=32,
            num_workers=job["num_workers"],
        )
        with torch.no_grad():
            rows = [network(batch.to(job["device"])).cpu() for batch in loader]
        return torch.cat(rows).numpy()

    return extract


def prepare_embetter(job):
    """Return embetter's pipeline; with `job["eval"]`, its network is put in eval mode.

    It loads weights by timm's name only; timm's ``local-dir:`` names make it load
    ours, so nothing of it is changed.
    """
    from embetter.vision import ImageLoader, TimmEncoder
    from sklearn.pipeline import make_pipeline

    def extract():
        encoder = TimmEncoder(f"local-dir:{job['folder']}")
        if job["eval"]:
            encoder.model.eval()
        return make_pipeline(ImageLoader(), encoder).fit_transform(job["paths"])

    return extract


def prepare_thingsvision(job):
    """Return thingsvision's extraction of the pooled last maps.

    It is handed the network that everybody runs; files are found and batched its way.
    """
    from thingsvision import get_extractor_from_model
    from thingsvision.utils.data import DataLoader, ImageDataset

    pooling = {"resnet50": "avgpool", "efficientnet_lite0": "global_pool"}

    def extract():
        network, transform = _make_network(job)
        extractor = get_extractor_from_model(
            model=network, device=job["device"], backend="pt"
        )
        paths = [pathlib.Path(path) for path in job["paths"]]
        files = ImageDataset(
            root=str(paths[0].parent),
            out_path=job["folder"],
            backend=extractor.get_backend(),
            transforms=transform,
            file_names=[path.name for path in paths],
        )
        batches = DataLoader(files, batch_size=32, backend=extractor.get_backend())
        return extractor.extract_features(
            batches, module_name=pooling[job["network"]], flatten_acts=True
        )

    return extract


def prepare_skdeepfeat(job):
    """Return our extractor with the cache that `job["cache"]` names, or none."""
    from skdeepfeat import PretrainedFeatureExtractor

    def extract():
        extractor = PretrainedFeatureExtractor(
            job["network"],
            weights=(
                str(pathlib.Path(job["folder"], "weights.pth"))
                if job["network"] == "resnet50"
                else "default"
            ),
            cache=job["cache"],
            device=job["device"],
            runtime=job["runtime"],
            precision=job["precision"],
        )
        return extractor.fit_transform(job["paths"])

    return extract


def measured(prepare):
    """Return a task that times a contender and counts the rows of its network."""

    def task(job):
        import numpy as np

        # What a network is built with; the contenders' own packages come in `prepare`.
        import timm  # noqa: F401
        import torchvision  # noqa: F401

        extract = prepare(job)
        counted = count_runs if job.get("runtime", "torch") != "torch" else count_rows
        with counted() as batches:
            start = time.perf_counter()
            features = extract()
            seconds = time.perf_counter() - start
        np.save(job["features"], features)
        return {"seconds": seconds, "rows": sum(batches), "n_batches": len(batches)}

    return task


if __name__ == "__main__":
    serve(
        {
            "loop": measured(prepare_loop),
            "embetter": measured(prepare_embetter),
            "thingsvision": measured(prepare_thingsvision),
            "skdeepfeat": measured(prepare_skdeepfeat),
        }
    )
