"""The worker of `few_rows.py`: one transform in a process of its own."""

import time

import numpy as np
from _common import serve

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.networks.running._batch_runner import Runner

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def transform(job):
    """Return the seconds before the first batch, and from it to the last row."""
    clock = CLOCKS[job["clock"]]
    times, call = [], Runner.__call__

    def timed(runner, batch):
        start = clock()
        rows = call(runner, batch)
        times.append((start, clock()))
        return rows

    Runner.__call__ = timed
    rng = np.random.default_rng(job["seed"])  # no image is known
    size = job["image_size"]
    X = rng.integers(0, 256, (job["n_images"], size, size, 3), dtype=np.uint8)
    extractor = PretrainedFeatureExtractor(
        job["model"],
        weights="random",
        image_size=size,
        cache=job["cache"],
        runtime=job["runtime"],
    )
    start = clock()
    extractor.transform(X)
    return {
        "start": times[0][0] - start,
        "rows": times[-1][1] - times[0][0],
        "whole": clock() - start,
    }


if __name__ == "__main__":
    serve({"transform": transform})
