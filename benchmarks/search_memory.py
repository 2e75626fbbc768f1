"""Memory of grid searches in two processes: it does not grow with the folds.

One search over a frozen network and a classifier, and one over fine-tuning, with 3, 5
and 10 folds. Each runs in a process of its own, with two workers; what all of them hold
is added up several times a second, pages that they share counted once.

    python benchmarks/search_memory.py [--folds 3 5 10] [--n-images 2000]
"""

import argparse
import contextlib
import pathlib
import subprocess

import psutil
from _common import (
    be_quick,
    describe_machine,
    machine_line,
    markdown_table,
    run_worker,
    watch_others,
    write_results,
)
from _searches import N_CLASSES

# Seconds between two looks: adding up the pages of a process takes milliseconds.
INTERVAL = 0.2

SEARCHES = {
    "frozen": "PretrainedFeatureExtractor + LogisticRegression, 2 candidates",
    "tuned": "FineTuneClassifier, 4 candidates",
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folds", type=int, nargs="+", default=[3, 5, 10])
    parser.add_argument(
        "--searches", nargs="+", choices=list(SEARCHES), default=list(SEARCHES)
    )
    parser.add_argument("--n-images", type=int, default=2000)
    parser.add_argument(
        "--n-tuned", type=int, default=100, help="images that are fine-tuned on"
    )
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--random-weights", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run; its figures mean nothing"
    )
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    arguments = parser.parse_args(argv)
    fewest = max(arguments.folds) * N_CLASSES
    if min(arguments.n_images, arguments.n_tuned) < fewest:
        parser.error(f"{max(arguments.folds)} folds need at least {fewest} images")
    return arguments


def watch_tree(process):
    """Wait for the process; return what it and its children held at most together."""
    peak, largest, n_processes = 0, 0, 0
    while True:
        try:
            process.wait(INTERVAL)
            return {
                "tree_peak_mb": peak / 1e6,
                "largest_process_mb": largest / 1e6,
                "n_processes": n_processes,
            }
        except subprocess.TimeoutExpired:
            held = list(_held_by_each(process.pid))
            peak = max(peak, sum(held))
            largest = max([largest, *held])
            n_processes = max(n_processes, len(held))


def _held_by_each(pid):
    """Yield for each process of a tree its own pages and its share of common ones."""
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                memory = process.memory_full_info()
                # Only Linux knows the share; elsewhere, common pages are left out.
                yield getattr(memory, "pss", memory.uss)


def measure(arguments):
    """Return a record for each search and number of folds."""
    results = []
    for kind in arguments.searches:
        for n_folds in arguments.folds:
            job = {
                "task": "search",
                "kind": kind,
                "n_folds": n_folds,
                "n_jobs": arguments.n_jobs,
                "n_images": (
                    arguments.n_images if kind == "frozen" else arguments.n_tuned
                ),
                "model": arguments.model,
                "weights": "random" if arguments.random_weights else "default",
                "device": arguments.device,
            }
            result = run_worker("_searches.py", job, watch=watch_tree)
            results.append({**job, **result})
    return results


def report(results, machine):
    """Return the tables as Markdown."""
    tables = []
    for kind, title in SEARCHES.items():
        rows = [
            [
                result["n_folds"],
                result["n_fits"],
                f"{result['seconds']:.1f}",
                f"{result['tree_peak_mb']:.0f}",
                f"{result['largest_process_mb']:.0f}",
                f"{result['peak_device_mb']:.0f}" if result["peak_device_mb"] else "-",
            ]
            for result in results
            if result["kind"] == kind
        ]
        header = [
            f"folds: {title}",
            "fits",
            "seconds",
            "peak of all processes, MB",
            "of the largest, MB",
            "peak on the GPU, MB a process",
        ]
        if rows:
            tables.append(markdown_table(header, rows))
    return "\n\n".join([*tables, machine_line(machine)])


def main(argv=None):
    arguments = parse_arguments(argv)
    if arguments.quick:
        be_quick()
    machine = describe_machine()
    with watch_others(machine):
        results = measure(arguments)
    text = report(results, machine)
    print(text)
    document = {"machine": machine, "results": results}
    write_results(arguments.output, "search_memory", document, text)


if __name__ == "__main__":
    main()
