"""How fast rows that are already known come back: images in memory, and files.

The rows are the embedded network's own, 1,280 floats each, computed at an input size of
8 pixels because that is cheap; reading them does not depend on it.
"""

import pathlib
import time

from _common import count_rows, serve


def _load_images(job):
    """Return what the user holds: an array in memory, or a list of paths."""
    import numpy as np

    if job["kind"] == "arrays":
        return np.load(job["images"])
    return pathlib.Path(job["images"]).read_text(encoding="utf-8").splitlines()


def _make_extractor(job):
    from skdeepfeat import PretrainedFeatureExtractor

    return PretrainedFeatureExtractor(
        image_size=8, cache=job["cache"], device=job["device"]
    )


def fill(job):
    """Compute all rows once."""
    extractor, images = _make_extractor(job), _load_images(job)
    with count_rows() as batches:
        start = time.perf_counter()
        features = extractor.transform(images)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "rows": sum(batches), "shape": list(features.shape)}


def read(job):
    """Read them in a fresh process: nothing is called before the call that is timed."""
    start = time.perf_counter()
    extractor = _make_extractor(job)
    import_seconds = time.perf_counter() - start
    images = _load_images(job)
    seconds = []
    with count_rows() as batches:
        for _ in range(2):
            start = time.perf_counter()
            features = extractor.transform(images)
            seconds.append(time.perf_counter() - start)
    return {
        "import_seconds": import_seconds,
        "first_seconds": seconds[0],
        "second_seconds": seconds[1],
        "rows": sum(batches),
        "shape": list(features.shape),
        "array_mb": features.nbytes / 1e6,
    }


if __name__ == "__main__":
    serve({"fill": fill, "read": read})
