"""What the features of all stages cost beside those of the neck alone.

A plain extraction and a linear probe of all stages and the neck take turns on the same
images in the same runtime. In both, the images that go through the network are counted.
The fits of the probe are timed separately.

    python benchmarks/layer_probe.py [--data FILE.npz] [--n-images 2000] [--repeats 5]
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np
from _common import (
    count_runs,
    describe_machine,
    machine_line,
    markdown_table,
    spread,
    watch_others,
    write_results,
)
from _images import load_photographs, make_tiny_images

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.inspection import linear_probe

# To reach: the time of all stages over that of the neck.
TARGET = 1.15


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=pathlib.Path, help="an .npz file with X_train and y_train")
    add("--model", default="efficientnet_lite0")
    add("--n-images", type=int, default=2000)
    add("--repeats", type=int, default=5)
    add("--runtimes", nargs="+", default=["openvino", "torch"])
    add("--caches", nargs="+", choices=["disk", "none"], default=["disk", "none"])
    add("--output", type=pathlib.Path, default="bench_output")
    return parser.parse_args(argv)


def load_images(path, n_images):
    """Return images and labels, of all classes also if a file is sorted by class."""
    if path is None:
        X = make_tiny_images(n_images)
        return X, np.arange(n_images) % len(load_photographs())
    with np.load(path, allow_pickle=False) as data:
        X, y = data["X_train"], data["y_train"]
    chosen = np.linspace(0, len(X), n_images, endpoint=False, dtype=int)
    return X[chosen], y[chosen]


def measure_pair(model, runtime, cache, X, y, stages_first):
    """Return seconds and counted images of one plain extraction and one probe."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, count_runs() as batches:

        def extractor(name):
            place = None if cache == "none" else pathlib.Path(folder, name)
            return PretrainedFeatureExtractor(model, runtime=runtime, cache=place)

        def extract_neck():
            start = time.perf_counter()
            extractor("neck").transform(X)
            found["neck"] = time.perf_counter() - start
            found["images_neck"] = sum(batches)

        def probe_stages():
            probe = linear_probe(extractor("stages"), X, y)
            found["stages"] = probe.attrs["extract_seconds"]
            found["fits"] = float(probe["fit_seconds"].sum())
            found["images_stages"] = sum(batches)

        for part in [probe_stages, extract_neck][:: 1 if stages_first else -1]:
            batches.clear()
            part()
    return {**found, "ratio": found["stages"] / found["neck"]}


def main(argv=None):
    arguments = parse_arguments(argv)
    machine = describe_machine()
    X, y = load_images(arguments.data, arguments.n_images)
    conditions = [(r, c) for r in arguments.runtimes for c in arguments.caches]
    results = {condition: [] for condition in conditions}
    with watch_others(machine):
        for runtime, cache in conditions:
            # Before the clock starts, both networks are loaded and converted.
            step = max(1, len(X) // 100)
            few = X[::step], y[::step]
            measure_pair(arguments.model, runtime, cache, *few, stages_first=False)
        for i in range(arguments.repeats):
            for runtime, cache in conditions:
                pair = measure_pair(
                    arguments.model, runtime, cache, X, y, stages_first=i % 2 == 0
                )
                results[runtime, cache].append(pair)
    rows = []
    for (runtime, cache), pairs in results.items():
        columns = {name: [pair[name] for pair in pairs] for name in pairs[0]}
        rows.append(
            [
                f"{runtime}, cache: {cache}",
                spread(columns["neck"]),
                spread(columns["stages"]),
                spread(columns["ratio"], 2),
                "yes" if statistics.median(columns["ratio"]) <= TARGET else "no",
                f"{max(columns['images_neck'])} / {max(columns['images_stages'])}",
                spread(columns["fits"]),
            ]
        )
    header = [
        f"{arguments.model}, {len(X):,} images",
        "neck, s",
        "all stages, s",
        "ratio",
        f"{TARGET} reached",
        "images through the network",
        "fits of the probe, s",
    ]
    text = f"{markdown_table(header, rows)}\n\n{machine_line(machine)}"
    print(text)
    document = {
        "machine": machine,
        "results": [
            {"runtime": runtime, "cache": cache, "pairs": pairs}
            for (runtime, cache), pairs in results.items()
        ],
    }
    write_results(arguments.output, "layer_probe", document, text)


if __name__ == "__main__":
    main()
