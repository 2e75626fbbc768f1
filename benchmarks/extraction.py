"""Feature extraction side by side, on the same files: what `make bench` runs.

Six parts, each contender in a process of its own:

extraction
    images/s, peak memory and rows through the neck of a plain DataLoader loop,
    embetter (as it is, and in eval mode) and skdeepfeat (in each runtime without a
    cache; cold and warm with one). They take turns, in another order each time, so that
    a drift of the machine meets all of them.
limits
    the network alone, in each form, and the decoding alone.
search
    rows through the neck in one GridSearchCV of 5 folds x 12 candidates.
known
    seconds until rows that are already known are back.
sweep
    images/s against the size of the images and against that of the batches.
growth
    seconds against the number of images, cold and warm, with one worker and two.

Writes `extraction.json`, `extraction.md` and the plots `image_size.png` and
`batch_size.png` into the output folder. See `benchmarks/README.md`.
"""

import argparse
import logging
import pathlib
import sys
import tempfile
import time

import numpy as np
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
from _images import (
    list_images,
    make_tiny_images,
    write_natural_images,
    write_tiny_images,
)
from _networks import NETWORKS
from _plots import plot_sweep

logger = logging.getLogger("benchmarks.extraction")

PARTS = ("extraction", "limits", "search", "known", "sweep", "growth")

# Rows are compared with this one, and speed with the better of the two loops.
REFERENCE = "DataLoader loop, 0 workers"
LOOPS = {
    REFERENCE: {"task": "loop", "num_workers": 0},
    "DataLoader loop, 2 workers": {"task": "loop", "num_workers": 2},
}
OTHERS = {
    "embetter as it is": {"task": "embetter", "eval": False},
    "embetter, eval()": {"task": "embetter", "eval": True},
}
# It wants versions of numpy and torchvision that we do not run with.
THINGSVISION = "thingsvision"
COLD, WARM = "skdeepfeat, cold", "skdeepfeat, warm"
RUNTIMES = {
    "skdeepfeat, torch": {"runtime": "torch", "precision": "float32"},
    "skdeepfeat, OpenVINO": {"runtime": "openvino", "precision": "float32"},
    "skdeepfeat, OpenVINO, bfloat16": {"runtime": "openvino", "precision": "bfloat16"},
}
MEMORIES = {
    "no cache": "none",
    "Pipeline(memory=...)": "pipeline",
    "skdeepfeat": "skdeepfeat",
}

# A file that was just written may change again within its time stamp's resolution, so
# its digest is not remembered. Nobody waits for that in real life: files are older.
SETTLING_SECONDS = 2.5

# Enough images that loading and converting are a small part of the time.
N_IMAGES = {"efficientnet_lite0": 2048, "resnet50": 1024}

# Images for rates that are measured without loading and converting.
N_FOR_RATES = 256


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=pathlib.Path, help="folder of image files (default: made)")
    add("--n-images", type=int, help=f"how many images to extract ({N_IMAGES})")
    add("--networks", nargs="+", choices=list(NETWORKS), help="default: both")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--contenders", nargs="+", help="of the extraction, besides the loops")
    add("--repeats", type=int, help="turns of each contender (2)")
    add("--thingsvision", metavar="PYTHON", help="of an environment that has it")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    add("--quick", action="store_true", help="a smoke run; its times mean nothing")
    arguments = parser.parse_args(argv)
    quick, full = (
        {"n_images": 8, "networks": ["efficientnet_lite0"], "repeats": 1},
        {"n_images": None, "networks": list(NETWORKS), "repeats": 2},
    )
    for name, value in (quick if arguments.quick else full).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    # 61 and 17 rows an image hold exactly where 5 folds are of equal size.
    arguments.n_search = 10 if arguments.quick else 60
    arguments.settling_seconds = 0 if arguments.quick else SETTLING_SECONDS
    arguments.n_arrays = 40 if arguments.quick else 20_000
    arguments.n_files = 80 if arguments.quick else 50_000
    arguments.n_grown = (40,) if arguments.quick else (1_000, 4_000, 16_000)
    arguments.image_sizes = (32,) if arguments.quick else (64, 128, 224, 320)
    # Its conversion is what takes time.
    smallest = {"model": "timm/test_resnet", "weights": "random"}
    arguments.swept_network = smallest if arguments.quick else {}
    arguments.batch_sizes = (8,) if arguments.quick else (1, 4, 8, 16, 32, 64)
    return arguments


def run_extraction(network, paths, arguments, scratch):
    """Let all contenders extract the features of the same files, in turns.

    Returns
    -------
    dict
        Name of the contender -> list of its results, one a turn.
    """
    job = {"network": network, "folder": str(scratch / network), "paths": paths}
    job["device"] = "cpu"
    others = dict(OTHERS)
    if arguments.thingsvision:
        others[THINGSVISION] = {"task": "thingsvision"}
    results = {}
    for turn in range(arguments.repeats):
        cache = str(scratch / f"cache-{network}-{turn}")
        ours = {"task": "skdeepfeat", "cache": cache, "runtime": "auto"}
        ours["precision"] = "float32"
        # Warm is the next process after cold, whatever the order of the others.
        groups = [{name: extra} for name, extra in {**LOOPS, **others}.items()]
        for name, form in RUNTIMES.items():
            groups.append({name: {**ours, "cache": None, **form}})
        groups.append({COLD: ours, WARM: ours})
        if arguments.contenders:
            wanted = {*LOOPS, *arguments.contenders}
            groups = [group for group in groups if not wanted.isdisjoint(group)]
        start = turn * len(groups) // arguments.repeats
        for group in groups[start:] + groups[:start]:
            for name, extra in group.items():
                features = str(scratch / f"{network}-{name}.npy")
                task = {**job, **extra, "features": features}
                python = sys.executable
                if name == THINGSVISION:
                    python = arguments.thingsvision
                result = run_worker("_contenders.py", task, python=python)
                result["images_per_s"] = len(paths) / result["seconds"]
                results.setdefault(name, []).append(result)
                _log(f"{network}, turn {turn + 1}, {name}", result)
    expected = np.load(scratch / f"{network}-{REFERENCE}.npy")
    for name, turns in results.items():
        difference = _difference(np.load(scratch / f"{network}-{name}.npy"), expected)
        for result in turns:
            result["difference"] = difference
    order = [*LOOPS, *others, *RUNTIMES, COLD, WARM]
    return {name: results[name] for name in order if name in results}


def run_limits(network, paths, arguments, scratch):
    """Run each part of the extraction alone; the network in every form that is used.

    Returns
    -------
    dict
        Name of the limit -> list of its results, one a turn.
    """
    job = {"network": network, "folder": str(scratch / network), "paths": paths}
    job |= {"device": "cpu", "n_images": min(len(paths), N_FOR_RATES)}
    tasks = {"decoding alone": {"task": "decoding"}}
    for name, form in RUNTIMES.items():
        form_name = name.removeprefix("skdeepfeat, ")
        tasks[f"network alone, {form_name}"] = {"task": "network", **form}
    results = {name: [] for name in tasks}
    for _ in range(arguments.repeats):
        for name, extra in tasks.items():
            result = run_worker("_limits.py", {**job, **extra})
            results[name].append(result)
            _log(f"{network}, {name}", result)
    return results


def report_limits(network, limits, results):
    """Return a table of the limits, and how much of each the whole has reached."""

    def median(turns):
        return float(np.median([turn["images_per_s"] for turn in turns]))

    rows = []
    for name, turns in limits.items():
        reached = results.get(name.replace("network alone", "skdeepfeat"))
        share = f"{median(reached) / median(turns):.2f}" if reached else "-"
        rows.append([name, spread([turn["images_per_s"] for turn in turns]), share])
    header = [f"{network}, limits", "images/s", "reached from files"]
    return markdown_table(header, rows)


def _difference(features, expected):
    """Return the largest relative distance between rows that should be the same."""
    distances = np.linalg.norm(features - expected, axis=1)
    return float((distances / np.linalg.norm(expected, axis=1)).max())


def report_extraction(network, results, n_images):
    medians = {
        name: float(np.median([turn["images_per_s"] for turn in turns]))
        for name, turns in results.items()
    }
    baseline = max(medians[name] for name in LOOPS)
    rows = [
        [
            name,
            spread([turn["images_per_s"] for turn in turns]),
            f"{medians[name] / baseline:.2f}",
            spread([turn["peak_mb"] for turn in turns], 0),
            "/".join(sorted({str(turn["rows"]) for turn in turns})),
            f"{turns[0]['difference']:.1e}",
        ]
        for name, turns in results.items()
    ]
    header = [
        f"{network}, {n_images} images",
        "images/s",
        "x better loop",
        "peak memory, MB",
        "rows through the neck",
        "difference",
    ]
    return markdown_table(header, rows)


def run_searches(paths, arguments, scratch):
    """Run the same grid search with each kind of memory."""
    results = {}
    for name, memory in MEMORIES.items():
        job = {"task": "search", "memory": memory, "paths": paths}
        job |= {"folder": str(scratch), "device": "cpu"}
        job["quick"] = arguments.quick
        results[name] = run_worker("_grid_search.py", job)
        _log(f"grid search, {name}", results[name])
    again = f"{name}, the same script again"
    results[again] = run_worker("_grid_search.py", job)
    _log(f"grid search, {again}", results[again])
    return results


def report_searches(results):
    any_result = next(iter(results.values()))
    header = [
        f"5 folds x {any_result['n_candidates']} candidates + refit, "
        f"{any_result['n_images']} images",
        "rows through the neck",
        "per image",
        "seconds",
    ]
    rows = [
        [
            name,
            result["rows"],
            f"{result['rows'] / result['n_images']:g}",
            f"{result['seconds']:.1f}",
        ]
        for name, result in results.items()
    ]
    return markdown_table(header, rows)


def run_known(arguments, scratch):
    """Fill a cache with images in memory and with files, and read each back."""
    images = make_tiny_images(arguments.n_arrays)
    array_file, list_file = scratch / "tiny.npy", scratch / "tiny.txt"
    np.save(array_file, images)
    paths = write_tiny_images(scratch / "tiny", arguments.n_files, seed=1)
    list_file.write_text("\n".join(paths), encoding="utf-8")
    time.sleep(arguments.settling_seconds)
    kinds = {
        f"{arguments.n_arrays:,} images in memory": ("arrays", array_file),
        f"{arguments.n_files:,} files": ("paths", list_file),
    }
    results = {}
    for name, (kind, file) in kinds.items():
        job = {"kind": kind, "images": str(file), "device": "cpu"}
        job["cache"] = str(scratch / "cache-known")
        filled = run_worker("_known_rows.py", {**job, "task": "fill"})
        _log(f"fill, {name}", filled)
        turns = []
        for _ in range(arguments.repeats):
            turns.append(run_worker("_known_rows.py", {**job, "task": "read"}))
            _log(f"read, {name}", turns[-1])
        results[name] = {"fill": filled, "read": turns}
    return results


def report_known(results):
    header = [
        "known rows, 1,280 floats each",
        "first call, s",
        "second call, s",
        "import, s",
        "peak memory, MB",
        "of it the features",
        "rows through the neck",
    ]
    rows = []
    for name, result in results.items():
        turns = result["read"]
        cells = [
            spread([turn[key] for turn in turns], digits)
            for key, digits in (
                ("first_seconds", 2),
                ("second_seconds", 2),
                ("import_seconds", 1),
                ("peak_mb", 0),
            )
        ]
        features = f"{turns[0]['array_mb']:.0f}"
        rows.append([name, *cells, features, max(turn["rows"] for turn in turns)])
    return markdown_table(header, rows)


def run_sweep(paths, arguments):
    """Extract at several sizes of the images and of the batches, in each runtime."""
    runtimes = ("torch", "openvino")
    results = []
    for image_size, batch_size in [
        *((size, 32) for size in arguments.image_sizes),
        *((224, size) for size in arguments.batch_sizes if size != 32),
    ]:
        for runtime in runtimes:
            job = {"task": "sweep", "image_size": image_size, "batch_size": batch_size}
            job |= {"runtime": runtime, "device": "cpu", "paths": paths}
            job["network"] = arguments.swept_network
            result = {**job, **run_worker("_scaling.py", job)}
            del result["paths"], result["task"], result["network"]
            results.append(result)
            _log("sweep", result)
    return results


def report_sweep(results):
    header = ["image size", "batch size", "runtime", "images/s"]
    rows = [
        [
            result["image_size"],
            result["batch_size"],
            result["runtime"],
            f"{result['images_per_s']:.1f}",
        ]
        for result in results
    ]
    return markdown_table(header, rows)


def run_growth(arguments, scratch):
    """Extract ever more tiny files, cold and warm, with one worker and two."""
    paths = write_tiny_images(scratch / "growing", max(arguments.n_grown), seed=2)
    list_file = scratch / "growing.txt"
    list_file.write_text("\n".join(paths), encoding="utf-8")
    time.sleep(arguments.settling_seconds)
    results = []
    for n_jobs in (1, 2):
        for n_images in arguments.n_grown:
            job = {"task": "grow", "list": str(list_file), "n_images": n_images}
            job |= {"n_jobs": n_jobs, "device": "cpu"}
            job["cache"] = str(scratch / f"cache-growth-{n_jobs}-{n_images}")
            cold = run_worker("_scaling.py", job)
            warm = run_worker("_scaling.py", job)
            result = {"n_jobs": n_jobs, "n_images": n_images}
            result |= {"cold": cold["seconds"], "warm": warm["seconds"]}
            result |= {"cold_peak_mb": cold["peak_mb"], "warm_peak_mb": warm["peak_mb"]}
            results.append(result)
            _log("growth", result)
    return results


def report_growth(results):
    header = [
        "32 x 32 pixels, n_jobs",
        "images",
        "cold, s",
        "ms an image",
        "warm, s",
        "ms an image",
        "peak memory, MB",
    ]
    rows = [
        [
            result["n_jobs"],
            f"{result['n_images']:,}",
            f"{result['cold']:.1f}",
            f"{1000 * result['cold'] / result['n_images']:.2f}",
            f"{result['warm']:.2f}",
            f"{1000 * result['warm'] / result['n_images']:.3f}",
            f"{result['cold_peak_mb']:.0f}",
        ]
        for result in results
    ]
    return markdown_table(header, rows)


def _log(name, result):
    figures = ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in result.items()
    )
    logger.info("%s: %s", name, figures)


def _count(arguments, network):
    if arguments.n_images is not None:
        return arguments.n_images
    return N_IMAGES[network]


def make_files(arguments, scratch):
    """Return the paths that extraction and search share."""
    n_images = max(
        arguments.n_search, *(_count(arguments, name) for name in arguments.networks)
    )
    if arguments.images:
        return list_images(arguments.images, n_images)
    paths = write_natural_images(scratch / "natural", n_images)
    time.sleep(arguments.settling_seconds)
    return paths


def run_parts(arguments, scratch, document):
    """Run the parts that were asked for into `document`; return their tables."""
    tables = []
    paths = make_files(arguments, scratch)
    for network in arguments.networks:
        files, results = paths[: _count(arguments, network)], {}
        folder = str(scratch / network)
        run_worker(
            "_networks.py", {"task": "write", "network": network, "folder": folder}
        )
        if "extraction" in arguments.parts:
            results = run_extraction(network, files, arguments, scratch)
            document.setdefault("extraction", {})[network] = results
            tables.append(report_extraction(network, results, len(files)))
        if "limits" in arguments.parts:
            limits = run_limits(network, files, arguments, scratch)
            document.setdefault("limits", {})[network] = limits
            tables.append(report_limits(network, limits, results))
    if "search" in arguments.parts:
        files = paths[: arguments.n_search]
        document["search"] = run_searches(files, arguments, scratch)
        tables.append(report_searches(document["search"]))
    if "known" in arguments.parts:
        document["known"] = run_known(arguments, scratch)
        tables.append(report_known(document["known"]))
    if "sweep" in arguments.parts:
        document["sweep"] = run_sweep(paths[:N_FOR_RATES], arguments)
        tables.append(report_sweep(document["sweep"]))
        plot_sweep(document["sweep"], arguments.output)
    if "growth" in arguments.parts:
        document["growth"] = run_growth(arguments, scratch)
        tables.append(report_growth(document["growth"]))
    return tables


def main(argv=None):
    arguments = parse_arguments(argv)
    if arguments.quick:
        be_quick()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    document = {"machine": describe_machine(), "device": "cpu"}
    with (
        tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as folder,
        watch_others(document["machine"]),
    ):
        tables = run_parts(arguments, pathlib.Path(folder), document)
    report = "\n\n".join([*tables, machine_line(document["machine"])])
    path = write_results(arguments.output, "extraction", document, report)
    print(f"{report}\n\nAll single results: {path}")


if __name__ == "__main__":
    main()
