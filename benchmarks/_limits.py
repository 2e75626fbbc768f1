"""How fast the parts of an extraction are, each alone: what the whole cannot exceed."""

import contextlib
import functools
import pathlib
import time

import numpy as np
from _common import count_runs, serve


def _resolve(job):
    from skdeepfeat.networks import resolve_neck

    return resolve_neck(job["network"], weights=_weights(job))


def _weights(job):
    if job["network"] == "resnet50":
        return str(pathlib.Path(job["folder"], "weights.pth"))
    return "default"


def network_alone(job):
    """Run a network on batches that lie in memory, ready for it.

    The network is loaded, converted and warmed up before the clock starts. On a GPU,
    batches lie in its memory, and it is never waited for but at the end.
    """
    return run_alone(job)["network alone"]


def run_alone(job, in_graph=False):
    """Return the rate of a network, and that of a CUDA graph of one batch."""
    import torch

    from skdeepfeat._utils._device import resolve_device

    neck, device = _resolve(job), resolve_device(job["device"])
    size = min(neck.suggested_batch_size(device, job["runtime"]), job["n_images"])
    rng = np.random.default_rng(0)
    shape = (size, *neck.preprocessing.crop, 3)
    batch = rng.integers(0, 256, shape, dtype=np.uint8)
    n_batches = max(2, -(-job["n_images"] // size))
    with neck.loaded(device, job["precision"], job["runtime"]) as run:
        run(batch)
        compute, finish = run, _nothing
        if device.type == "cuda":
            compute = run._network.queue
            batch = torch.from_numpy(batch).to(device)
            finish = functools.partial(torch.cuda.synchronize, device)
        for _ in range(2):  # the clocks of a GPU rise, too
            compute(batch)
        finish()

        def rate(compute):
            start = time.perf_counter()
            for _ in range(n_batches):
                compute(batch)
            finish()
            seconds = time.perf_counter() - start
            return {"images_per_s": n_batches * size / seconds, "batch_size": size}

        found = {"network alone": rate(compute)}
        if in_graph:
            graph = torch.cuda.CUDAGraph()
            # A capture sees what is queued on its own stream.
            with torch.cuda.graph(graph, stream=run._network._transfer._stream):
                compute(batch)
            found["network alone, CUDA graph"] = rate(functools.partial(_replay, graph))
    return found


def _replay(graph, batch):
    graph.replay()


def _nothing():
    pass


def from_memory(job):
    """Extract from an array of images in memory, the network being warmed up."""
    from skdeepfeat import PretrainedFeatureExtractor
    from skdeepfeat.images._geometry import resized_shape

    neck = _resolve(job)
    # The size that they would be resized to, so that they only have to be cropped.
    shape = resized_shape(neck.preprocessing.crop, neck.preprocessing)
    images = np.empty((job["n_images"], *shape, 3), np.uint8)
    rng = np.random.default_rng(0)
    for image in images:  # each another one, as what comes again is computed once
        image[:] = rng.integers(0, 256, image.shape, np.uint8)
    extractor = PretrainedFeatureExtractor(
        job["network"],
        weights=_weights(job),
        device=job["device"],
        precision=job["precision"],
        runtime=job["runtime"],
        cache=None,
    )
    extractor.transform(images)
    with count_runs() as batches:
        start = time.perf_counter()
        extractor.transform(images)
        seconds = time.perf_counter() - start
    return {"images_per_s": len(images) / seconds, "rows": sum(batches)}


def decoding_alone(job):
    """Decode, resize and crop the files as the extraction does, for nobody."""
    from skdeepfeat.feature_extraction._compute import decode_ahead
    from skdeepfeat.images import make_image_source

    neck = _resolve(job)
    source = make_image_source(job["paths"])
    start = time.perf_counter()
    with contextlib.closing(decode_ahead(source, neck.preprocessing, 32)) as decoded:
        for _, images, _ in decoded:
            np.stack(images)
    return {"images_per_s": len(source) / (time.perf_counter() - start)}


if __name__ == "__main__":
    serve(
        {
            "network": network_alone,
            "from_memory": from_memory,
            "decoding": decoding_alone,
        }
    )
