"""How the package behaves with a million files, millions of rows, and far workers.

    python benchmarks/scale.py [--parts growth known large clusters] [--quick]

* growth: known rows of 1,000, 16,000 and 256,000 files, each in a new process: time,
  and memory beyond the features themselves.
* known: a million known files, beside `os.stat` of each and plain SQLite's rows, in
  turns. To reach: 3 times as long.
* large: a cache of 5 million rows of 32 floats: what opening, lookup, writing, info,
  check, eviction and clear take, how large the write-ahead log becomes, and how long
  another process waits meanwhile.
* clusters: two machines' worth of workers of Dask and Ray on this machine. They wait as
  for an accelerator, and messages are delayed. The efficiency is the time that workers
  without any way between them would take, divided by the time that was taken.

The files of 1 million take 4 GB (a block for each) and as many inodes, and the large
cache takes 1.5 GB. Both are removed at the end.
"""

import argparse
import logging
import pathlib
import statistics
import tempfile

from _common import (
    be_quick,
    describe_machine,
    machine_line,
    markdown_table,
    run_worker,
    spread,
    watch_others,
    write_results,
)
from _large_caches import write_files

logger = logging.getLogger("benchmarks.scale")

PARTS = ("growth", "known", "large", "clusters")
OPERATIONS = {
    "open_and_look_up_one": "open, and look up one row",
    "look_up_many": "look up 100,000 rows",
    "add_a_batch": "store 64 rows",
    "info": "info()",
    "check": "check()",
    "evict": "evict a tenth",
    "clear": "clear(label)",
}
TO_REACH = 3.0


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--n-grown", type=int, nargs="+", default=[1000, 16_000, 256_000])
    add("--n-known", type=int, default=1_000_000)
    add("--n-rows", type=int, default=5_000_000)
    add("--repeats", type=int, default=3)
    add("--layer", default="blocks.0", help="whose features are the rows")
    add("--backends", nargs="+", choices=("dask", "ray"), default=["dask", "ray"])
    add("--latencies", type=float, nargs="+", default=[0, 0.01, 0.05])
    add("--n-workers", type=int, default=4)
    add("--n-images", type=int, default=2000, help="of clusters")
    add("--seconds-per-image", type=float, default=0.01)
    add("--quick", action="store_true", help="a smoke run; its figures mean nothing")
    add("--scratch", type=pathlib.Path, help="folder for files and caches")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.n_grown, arguments.n_known, arguments.n_rows = [50, 100], 100, 1000
        arguments.repeats, arguments.n_images, arguments.n_workers = 1, 32, 1
        arguments.backends, arguments.latencies = ["dask"], [0.01]
        arguments.seconds_per_image = 0.001
    return arguments


def _job(task, folder, arguments):
    return {
        "task": task,
        "layer": arguments.layer,
        "cache": str(folder / "cache"),
        "files": str(folder / "files"),
        "list": str(folder / "list"),
        "n": arguments.repeats,
    }


def run_files(folder, arguments, document):
    """Run the parts about known files, which share them."""
    wanted = {
        "growth": max(arguments.n_grown),
        "known": arguments.n_known,
    }
    n_files = max(wanted[part] for part in arguments.parts if part in wanted)
    job = _job("fill_known", folder, arguments)
    document["files"] = run_worker("_large_caches.py", {**job, "n_files": n_files})
    logger.info("%d files are known", n_files)
    if "growth" in arguments.parts:
        job = _job("read_known", folder, arguments)
        document["growth"] = [
            {"n_files": n, **run_worker("_large_caches.py", {**job, "n_files": n})}
            for n in arguments.n_grown
        ]
    if "known" in arguments.parts:
        job = _job("compare_known", folder, arguments) | {"n_files": arguments.n_known}
        document["known"] = run_worker("_large_caches.py", job)


def report_growth(document):
    header = [
        f"known files, {document['files']['n_features']} floats each",
        "seconds",
        "CPU, s",
        "us a file",
        "features, MB",
        "memory beyond them, MB",
        "bytes a file",
    ]
    rows = []
    for one in document["growth"]:
        beyond = max(one["grown_mb"] - one["output_mb"], 0.0)
        rows.append(
            [
                f"{one['n_files']:,}",
                f"{one['seconds']:.2f}",
                f"{one['cpu_seconds']:.2f}",
                f"{1e6 * one['cpu_seconds'] / one['n_files']:.1f}",
                f"{one['output_mb']:.1f}",
                f"{beyond:.0f}",
                f"{1e6 * beyond / one['n_files']:.0f}",
            ]
        )
    return markdown_table(header, rows)


def report_known(turns, n_files):
    """Return a table and the ratio to what was to be reached."""
    names = {
        "transform": "transform",
        "stat": "os.stat of each",
        "read_by_path": "plain SQLite, row by row, by path",
        "read_in_order": "plain SQLite, all rows in order",
    }
    rows = [
        [label, *(spread([turn[name][k] for turn in turns], 2) for k in (0, 1))]
        for name, label in names.items()
    ]
    lines = [markdown_table([f"{n_files:,} known files", "seconds", "CPU, s"], rows)]
    for name in ("read_by_path", "read_in_order"):
        ratios = [
            [turn["transform"][k] / (turn["stat"][k] + turn[name][k]) for turn in turns]
            for k in (0, 1)
        ]
        medians = [statistics.median(each) for each in ratios]
        lines.append(
            f"transform takes {medians[0]:.2f} times the seconds ({medians[1]:.2f} "
            f"times the CPU's) of os.stat and {names[name]}; to reach: {TO_REACH:.1f}."
        )
    return "\n\n".join(lines)


def run_large(folder, arguments):
    job = {"cache": str(folder / "large"), "n_rows": arguments.n_rows, "n_features": 32}
    filled = run_worker("_large_caches.py", {**job, "task": "fill_large"})
    results = {"fill": filled}
    for name in OPERATIONS:
        job |= {"task": "use_large", "operation": name}
        results[name] = run_worker("_large_caches.py", job)
        logger.info("%s: %s", name, results[name])
    return results


def report_large(results, n_rows):
    header = [
        f"{n_rows:,} rows of 32 floats, {results['fill']['file_mb']:.0f} MB",
        "seconds",
        "CPU, s",
        "memory, MB",
        "write-ahead log, MB",
        "another writer waited, s",
    ]
    rows = [
        [
            label,
            f"{one['seconds']:.2f}",
            f"{one['cpu_seconds']:.2f}",
            f"{one['grown_mb']:.0f}",
            f"{one['wal_mb']:.0f}",
            f"{one['longest_wait']:.2f}" if one["longest_wait"] else "-",
        ]
        for name, label in OPERATIONS.items()
        for one in [results[name]]
    ]
    return markdown_table(header, rows)


def run_clusters(folder, arguments):
    paths = write_files(folder / "images", arguments.n_images)
    list_file = folder / "images.txt"
    list_file.write_text("\n".join(paths), encoding="utf-8")
    results = []
    for backend in arguments.backends:
        for latency in arguments.latencies:
            job = {
                "task": "extract",
                "list": str(list_file),
                "backend": backend,
                "latency": latency,
                "n_workers": arguments.n_workers,
                "seconds_per_image": arguments.seconds_per_image,
                "batch_size": 16,
                "n": arguments.repeats,
            }
            found = run_worker("_clusters.py", job)["seconds"]
            ideal = arguments.n_images * job["seconds_per_image"] / job["n_workers"]
            efficiency = [ideal / seconds for seconds in found[1:]]
            results.append(
                {
                    **job,
                    "n_images": arguments.n_images,
                    "first": found[0],
                    "efficiency": efficiency,
                }
            )
            logger.info("%s", results[-1])
    return results


def report_clusters(results):
    header = [
        "backend",
        "workers",
        "delay of a message, ms",
        "images",
        "first call, s",
        "efficiency of the next",
    ]
    rows = [
        [
            one["backend"],
            one["n_workers"],
            f"{1000 * one['latency']:.0f}",
            one["n_images"],
            f"{one['first']:.1f}",
            spread(one["efficiency"], 2),
        ]
        for one in results
    ]
    return markdown_table(header, rows)


def run_parts(arguments, folder, document):
    """Run the parts that were asked for into `document`; return their tables."""
    tables = []
    if {"growth", "known"} & set(arguments.parts):
        run_files(folder, arguments, document)
    if "growth" in arguments.parts:
        tables.append(report_growth(document))
    if "known" in arguments.parts:
        tables.append(report_known(document["known"]["turns"], arguments.n_known))
    if "large" in arguments.parts:
        document["large"] = run_large(folder, arguments)
        tables.append(report_large(document["large"], arguments.n_rows))
    if "clusters" in arguments.parts:
        document["clusters"] = run_clusters(folder, arguments)
        tables.append(report_clusters(document["clusters"]))
    return tables


def main(argv=None):
    arguments = parse_arguments(argv)
    if arguments.quick:
        be_quick()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    document = {"machine": describe_machine()}
    with (
        tempfile.TemporaryDirectory(
            prefix="skdeepfeat-bench-", dir=arguments.scratch
        ) as folder,
        watch_others(document["machine"]),
    ):
        tables = run_parts(arguments, pathlib.Path(folder), document)
    report = "\n\n".join([*tables, machine_line(document["machine"])])
    write_results(arguments.output, "scale", document, report)
    print(report)


if __name__ == "__main__":
    main()
