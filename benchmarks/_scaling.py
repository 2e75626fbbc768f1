"""How the cost of our extraction depends on sizes and numbers."""

import time

from _common import serve


def sweep(job):
    """Extract the same files at one image size and one batch size."""
    from skdeepfeat import PretrainedFeatureExtractor

    extractor = PretrainedFeatureExtractor(
        **job["network"],
        image_size=job["image_size"],
        batch_size=job["batch_size"],
        runtime=job["runtime"],
        device=job["device"],
        cache=None,
    )
    # Loads and converts the network: a matter of once, not of the size.
    extractor.transform(job["paths"][: job["batch_size"]])
    start = time.perf_counter()
    extractor.transform(job["paths"])
    return {"images_per_s": len(job["paths"]) / (time.perf_counter() - start)}


def grow(job):
    """Extract tiny files, cold or warm, with one or more workers."""
    from skdeepfeat import PretrainedFeatureExtractor

    with open(job["list"], encoding="utf-8") as lines:
        paths = lines.read().splitlines()[: job["n_images"]]
    extractor = PretrainedFeatureExtractor(
        image_size=32,
        runtime="torch",
        n_jobs=job["n_jobs"],
        device=job["device"],
        cache=job["cache"],
    )
    start = time.perf_counter()
    extractor.transform(paths)
    return {"seconds": time.perf_counter() - start}


if __name__ == "__main__":
    serve({"sweep": sweep, "grow": grow})
