"""One run of `two_versions.py`: what is timed for either version of the package."""

import pathlib
import statistics
import time

import numpy as np
from _common import serve


def _load(job):
    if job["images"].endswith(".npy"):
        return np.load(job["images"])
    return pathlib.Path(job["images"]).read_text(encoding="utf-8").splitlines()


def _timed(extractor, images):
    start = time.perf_counter()
    extractor.transform(images)
    return time.perf_counter() - start


def cold(job):
    """Compute the features of images, from the first import on.

    Versions differ in what they import when.
    """
    images, start = _load(job), time.perf_counter()
    from skdeepfeat import PretrainedFeatureExtractor

    PretrainedFeatureExtractor(cache=job["cache"]).transform(images)
    return {"seconds": {"": time.perf_counter() - start}}


def warm(job):
    """Read features that are known: the first call of a process, and further ones."""
    from skdeepfeat import PretrainedFeatureExtractor

    images = _load(job)
    # Reading rows does not depend on the size of the image that they were computed for.
    extractor = PretrainedFeatureExtractor(image_size=8, cache=job["cache"])
    first = _timed(extractor, images)
    later = statistics.median(_timed(extractor, images) for _ in range(5))
    return {"seconds": {", first call": first, ", next calls": later}}


if __name__ == "__main__":
    serve({"cold": cold, "warm": warm})
