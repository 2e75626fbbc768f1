"""How fast the parts of an extraction are, each alone: what the whole cannot exceed."""

import contextlib
import pathlib
import time

import numpy as np
from _common import serve


def _resolve(job):
    from skdeepfeat.necks import resolve_neck

    weights = "default"
    if job["network"] == "resnet50":
        weights = str(pathlib.Path(job["folder"], "weights.pth"))
    return resolve_neck(job["network"], weights=weights)


def network_alone(job):
    """Run a network on batches that lie in memory, ready for it.

    The network is loaded, converted and warmed up before the clock starts.
    """
    from skdeepfeat._device import resolve_device

    neck, device = _resolve(job), resolve_device(job["device"])
    size = neck.suggested_batch_size(device)
    rng = np.random.default_rng(0)
    shape = (size, *neck.preprocessing.crop, 3)
    batch = rng.integers(0, 256, shape, dtype=np.uint8)
    n_batches = max(2, -(-job["n_images"] // size))
    with neck.loaded(device, job["precision"], job["runtime"]) as run:
        run(batch)
        start = time.perf_counter()
        for _ in range(n_batches):
            run(batch)
        seconds = time.perf_counter() - start
    return {"images_per_s": n_batches * size / seconds, "batch_size": size}


def decoding_alone(job):
    """Decode, resize and crop the files as the extraction does, for nobody."""
    from skdeepfeat.extraction._decoding import decode_ahead
    from skdeepfeat.images import make_image_source

    neck = _resolve(job)
    source = make_image_source(job["paths"])
    indices = np.arange(len(source))
    start = time.perf_counter()
    decoded = decode_ahead(source, indices, neck.preprocessing, 32)
    with contextlib.closing(decoded):
        for _, images, _ in decoded:
            np.stack(images)
    return {"images_per_s": len(source) / (time.perf_counter() - start)}


if __name__ == "__main__":
    serve({"network": network_alone, "decoding": decoding_alone})
