"""What an early layer costs: the network really stops behind it.

For each stage of a network, the time to extract the same images up to that stage, as a
share of the time for the whole network, beside the share of the floating-point
operations that `list_layers` announces. The layers take turns, so that a drift of
the machine falls on all of them.

    python benchmarks/truncation.py [--model resnet50] [--n-images 64] [--repeats 5]
"""

import argparse
import pathlib
import statistics
import time

import numpy as np
from _common import (
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)

from skdeepfeat import PretrainedFeatureExtractor, list_layers


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--n-images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    return parser.parse_args(argv)


def measure(model, device, images, repeats):
    """Return a record a stage, and one for the whole network."""
    layers = list_layers(model, weights="random")
    stages = layers.dropna(subset="stage").sort_values("stage")
    extractors = {
        name: PretrainedFeatureExtractor(
            model, weights="random", layer=name, device=device, cache=None
        )
        for name in [*stages["name"], "output"]
    }
    seconds = {name: [] for name in extractors}
    for extractor in extractors.values():  # the network is built, memory is warm
        extractor.transform(images[:2])
    for _ in range(repeats):
        for name, extractor in extractors.items():
            start = time.perf_counter()
            extractor.transform(images)
            seconds[name].append(time.perf_counter() - start)
    whole = statistics.median(seconds["output"])
    shares = layers.set_index("name")["cumulative_cost"]
    return [
        {
            "layer": name,
            "share_of_operations": float(shares[name]),
            "seconds": seconds[name],
            "share_of_time": statistics.median(seconds[name]) / whole,
        }
        for name in extractors
    ]


def main(argv=None):
    arguments = parse_arguments(argv)
    machine = describe_machine()
    rng = np.random.default_rng(0)
    shape = (arguments.n_images, 256, 256, 3)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    with watch_others(machine):
        results = measure(arguments.model, arguments.device, images, arguments.repeats)
    rows = [
        [
            result["layer"],
            f"{result['share_of_operations']:.2f}",
            f"{result['share_of_time']:.2f}",
            f"{statistics.median(result['seconds']):.2f}",
        ]
        for result in results
    ]
    header = [
        f"{arguments.model}, up to",
        "share of the operations",
        "share of the time",
        f"seconds for {arguments.n_images} images",
    ]
    text = f"{markdown_table(header, rows)}\n\n{machine_line(machine)}"
    print(text)
    write_results(
        pathlib.Path(arguments.output),
        "truncation",
        {"machine": machine, "results": results},
        text,
    )


if __name__ == "__main__":
    main()
