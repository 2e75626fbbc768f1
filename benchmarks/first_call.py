"""What the first call of a process costs when all rows are known.

    python benchmarks/first_call.py [--models NAME ...] [--pairs 5]

For each network, rows are computed once. Then new processes take turns: one imports
scikit-learn and torch and nothing else, the next one makes an extractor and transforms
the same images. Networks other than the embedded ones have random weights, as no
download is made; how the rows of others are found differs by a look at a weights file.
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from _common import (
    describe_machine,
    machine_line,
    markdown_table,
    spread,
    watch_others,
    write_results,
)

MODELS = ["efficientnet_lite0", "resnet50", "vit_tiny_patch16_224"]
SLOW = ["timm", "torch._dynamo", "torchvision"]
IMPORTS = "import sklearn, torch"
TRANSFORM = """
import sys
import numpy as np
from skdeepfeat import PretrainedFeatureExtractor
model, weights, cache, layer = sys.argv[1:]
X = np.arange(2 * 9 * 9 * 3, dtype=np.uint8).reshape(2, 9, 9, 3)
extractor = PretrainedFeatureExtractor(
    model, weights=weights, image_size=32, cache=cache, layer=layer or None
)
extractor.transform(X)
print(*sys.modules)
"""


def run(code, *arguments):
    """Return the seconds that a new process takes, and the words that it prints."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return time.perf_counter() - start, done.stdout.split()


def measure(model, layer, n_pairs):
    """Return ratios and seconds of pairs of processes, and what was imported."""
    weights = "default" if model.startswith("efficientnet_lite") else "random"
    with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as cache:
        transform = [TRANSFORM, model, weights, cache, layer]
        cold, _ = run(*transform)
        pairs = []
        for _ in range(n_pairs):
            imports, _ = run(IMPORTS)
            warm, modules = run(*transform)
            pairs.append((imports, warm))
    return {
        "model": model,
        "layer": layer or "neck",
        "cold_seconds": cold,
        "import_seconds": [imports for imports, _ in pairs],
        "warm_seconds": [warm for _, warm in pairs],
        "ratios": [warm / imports for imports, warm in pairs],
        "slow_imports": sorted(set(SLOW) & set(modules)),
    }


def report(results):
    """Return the results as a Markdown table."""
    header = ["network", "import sklearn, torch, s", "known rows, s", "ratio", "too"]
    rows = [
        [
            f"{one['model']}, {one['layer']}",
            spread(one["import_seconds"], 2),
            spread(one["warm_seconds"], 2),
            spread(one["ratios"], 2),
            ", ".join(one["slow_imports"]) or "-",
        ]
        for one in results
    ]
    return markdown_table(header, rows)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--layer", default="", help="the neck by default")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    arguments = parser.parse_args(argv)
    machine = describe_machine()
    with watch_others(machine):
        results = [
            measure(model, arguments.layer, arguments.pairs)
            for model in arguments.models
        ]
    ratio = max(statistics.median(one["ratios"]) for one in results)
    text = (
        f"{report(results)}\n\nThe largest ratio is {ratio:.2f}; to reach: 1.3.\n\n"
        f"{machine_line(machine)}"
    )
    print(text)
    document = {"machine": machine, "results": results}
    write_results(arguments.output, "first_call", document, text)


if __name__ == "__main__":
    main()
