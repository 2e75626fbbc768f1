"""What it costs to recognize a user's own network, beside 300 images through it.

Run ``python -m benchmarks.identity`` in the repository. ``--model`` is a name of timm's
or torchvision's; its network is given as a module with random weights.
"""

import argparse
import statistics
import time

import numpy as np
import torch

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.probing._fingerprint import digest_tensors, fingerprint_of

CPU = torch.device("cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    network = resolve_neck(options.model, weights="random").spec.build().eval()
    neck = resolve_neck(network)
    height, width = neck.preprocessing.crop
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.images, height, width, 3), dtype=np.uint8)
    extractor = PretrainedFeatureExtractor(network, cache=None, device="cpu")
    whole, _ = timed(lambda: extractor.transform(images), 1)
    print(f"{options.model}, {options.images} images: {whole:.2f} s")
    copying, spec = timed(neck.spec.snapshot, options.repeats)
    digesting, _ = timed(lambda: digest_tensors(spec.module), options.repeats)
    probing, _ = timed(lambda: fingerprint_of(neck, CPU), options.repeats)
    for name, seconds in {
        "private copy": copying,
        "digest of its tensors": digesting,
        "digest and probe": probing,
    }.items():
        print(f"{name:>24}: {seconds:.3f} s, {100 * seconds / whole:.1f} %")


def timed(function, repeats):
    """Return the median of the seconds that a function takes, and what it returns."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


if __name__ == "__main__":
    main()
