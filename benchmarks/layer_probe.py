"""What the features of all stages cost beside those of the neck alone.

Extractions of the neck and of all stages with the neck take turns on the same images in
the same runtime, and the images that go through the network are counted. On a busy
machine, the ratio of the CPU times is more reliable than that of the times. With a
cache, `linear_probe` then reads what is known; its time is that of its fits.

    python benchmarks/layer_probe.py [--data FILE.npz] [--n-images 2000] [--repeats 5]
"""

import argparse
import logging
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
from skdeepfeat.feature_extraction import extract_layers
from skdeepfeat.inspection import linear_probe

logger = logging.getLogger("benchmarks.layer_probe")

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
    """Return seconds and counted images of extractions of the neck and of all stages.

    With a cache, the layers are probed then, which must not run any image again.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder, count_runs() as batches:

        def extractor(name):
            place = None if cache == "none" else pathlib.Path(folder, name)
            return PretrainedFeatureExtractor(model, runtime=runtime, cache=place)

        def measure(name, extract):
            batches.clear()
            start, cpu_start = time.perf_counter(), time.process_time()
            extract()
            found[name] = time.perf_counter() - start
            found[f"{name}_cpu"] = time.process_time() - cpu_start
            found[f"{name}_images"] = sum(batches)

        parts = {
            "neck": lambda: extractor("neck").transform(X),
            "stages": lambda: extract_layers(extractor("stages"), X, "stages"),
        }
        for name in sorted(parts, reverse=stages_first):
            measure(name, parts[name])
        if cache == "disk":
            measure("probe", lambda: linear_probe(extractor("stages"), X, y))
    found["ratio"] = found["stages"] / found["neck"]
    found["cpu_ratio"] = found["stages_cpu"] / found["neck_cpu"]
    return found


def main(argv=None):
    arguments = parse_arguments(argv)
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    machine = describe_machine()
    X, y = load_images(arguments.data, arguments.n_images)
    conditions = [(r, c) for r in arguments.runtimes for c in arguments.caches]
    results = {condition: [] for condition in conditions}
    with watch_others(machine):
        for runtime, cache in conditions:
            # Before that, both networks are loaded and converted.
            step = max(1, len(X) // 100)
            few = X[::step], y[::step]
            measure_pair(arguments.model, runtime, cache, *few, stages_first=False)
        for i in range(arguments.repeats):
            for runtime, cache in conditions:
                pair = measure_pair(
                    arguments.model, runtime, cache, X, y, stages_first=i % 2 == 0
                )
                results[runtime, cache].append(pair)
                logger.info("%s, cache %s: %s", runtime, cache, pair)
    rows = []
    for (runtime, cache), pairs in results.items():
        columns = {name: [pair[name] for pair in pairs] for name in pairs[0]}
        counts = [max(columns[f"{name}_images"]) for name in ("neck", "stages")]
        is_reached = statistics.median(columns["cpu_ratio"]) <= TARGET
        rows.append(
            [
                f"{runtime}, {'with' if cache == 'disk' else 'without'} a cache",
                " / ".join(map(str, counts)),
                spread(columns["neck"]),
                spread(columns["stages"]),
                spread(columns["ratio"], 2),
                spread(columns["cpu_ratio"], 2),
                "yes" if is_reached else "no",
                spread(columns["probe"]) if cache == "disk" else "",
            ]
        )
    header = [
        f"{arguments.model}, {len(X):,} images",
        "images run, neck / stages",
        "neck, s",
        "stages, s",
        "ratio",
        "ratio of CPU times",
        f"{TARGET} reached",
        "probe of known features, s",
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
