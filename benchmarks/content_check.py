"""What it costs to copy and hash each array when it is used, beside the network.

An image in memory may be changed by its owner while it is read. So its pixels are
copied, and the copy is hashed and compared with what was hashed before.

    python benchmarks/content_check.py [--model efficientnet_lite0]
"""

import argparse
import pathlib
import time

import numpy as np
from _common import (
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)

from skdeepfeat.images import make_image_source
from skdeepfeat.networks import resolve_neck

SHAPES = ((224, 224, 3), (375, 500, 3))
N_IMAGES = 64
N_REPEATS = 7


def seconds_of(call):
    """Return the least CPU time of several calls, in seconds."""
    times = []
    for _ in range(N_REPEATS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def measure(neck, shape):
    """Return microseconds an image: reading, the same with the check, the network."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (N_IMAGES, *shape), np.uint8)
    plain, checked = make_image_source(X), make_image_source(X)
    checked.digests()

    def read(source):
        return [source.fitted(i, neck.preprocessing) for i in range(N_IMAGES)]

    batch = np.stack(read(plain))
    with neck.loaded("cpu", runtime="auto", n_images=10_000) as run:
        run(batch)
        network = seconds_of(lambda: run(batch))
    times = [
        seconds_of(lambda: read(plain)),
        seconds_of(lambda: read(checked)),
        network,
    ]
    return [1e6 * seconds / N_IMAGES for seconds in times]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    arguments = parser.parse_args(argv)
    machine, neck = describe_machine(), resolve_neck(arguments.model)
    with watch_others(machine):
        results = {shape: measure(neck, shape) for shape in SHAPES}
    rows = [
        [
            " x ".join(map(str, shape)),
            *(f"{time:.0f}" for time in times),
            f"{100 * (times[1] - times[0]) / (times[0] + times[2]):.1f}",
        ]
        for shape, times in results.items()
    ]
    columns = ["array", "read, us", "read and checked, us", "network, us", "cost, %"]
    report = f"{markdown_table(columns, rows)}\n\n{machine_line(machine)}"
    print(report)
    written = {str(shape): times for shape, times in results.items()}
    write_results(
        arguments.output,
        "content_check",
        {"machine": machine, "results": written},
        report,
    )


if __name__ == "__main__":
    main()
