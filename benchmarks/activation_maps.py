"""What activation maps cost, beside the forward passes of the same images in torch.

The images are in memory, at the size that the network sees. The forward passes are
those of the network's own module, in batches of the same size. Both take turns, so that
a drift of the machine falls on both.

    python benchmarks/activation_maps.py [--model resnet50] [--n-images 100]
"""

import argparse
import functools
import pathlib
import statistics
import time

import numpy as np
import torch
from _common import (
    describe_machine,
    machine_line,
    markdown_table,
    spread,
    watch_others,
    write_results,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.inspection import activation_maps
from skdeepfeat.networks import resolve_neck

METHODS = ("gradcam", "cam")
BATCH = 16


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--n-images", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    return parser.parse_args(argv)


def measure(model, weights, n_images, repeats):
    """Return the seconds of each method, and of the forward passes, as lists."""
    neck = resolve_neck(model, weights=weights)
    height, width = neck.preprocessing.crop
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n_images, height, width, 3), dtype=np.uint8)
    extractor = PretrainedFeatureExtractor(
        model, weights=weights, device="cpu", cache=None
    )
    pipe = make_pipeline(extractor, StandardScaler(), LogisticRegression())
    shown = images[:16]
    pipe.fit(shown, np.arange(len(shown)) % 4)
    network = neck.trainable()

    def forward():
        with torch.inference_mode():
            for start in range(0, n_images, BATCH):
                batch = torch.from_numpy(images[start : start + BATCH])
                network(batch.permute(0, 3, 1, 2))

    runs = {"forward": forward}
    for method in METHODS:
        runs[method] = functools.partial(activation_maps, pipe, images, method=method)
    seconds = {name: [] for name in runs}
    for function in runs.values():
        function()
    for _ in range(repeats):
        for name, function in runs.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report(model, n_images, seconds):
    """Return the result as a Markdown table."""
    forward = statistics.median(seconds["forward"])
    rows = [
        [name, spread(found, 2), f"{statistics.median(found) / forward:.2f}"]
        for name, found in seconds.items()
    ]
    header = [f"{model}, {n_images} images", "seconds", "of the forward passes"]
    return markdown_table(header, rows)


def main(argv=None):
    arguments = parse_arguments(argv)
    machine = describe_machine()
    with watch_others(machine):
        seconds = measure(
            arguments.model, arguments.weights, arguments.n_images, arguments.repeats
        )
    text = report(arguments.model, arguments.n_images, seconds)
    text += f"\n\n{torch.get_num_threads()} threads. {machine_line(machine)}"
    print(text)
    settings = {**vars(arguments), "output": str(arguments.output)}
    document = {"machine": machine, "arguments": settings, "seconds": seconds}
    write_results(arguments.output, "activation_maps", document, text)


if __name__ == "__main__":
    main()
