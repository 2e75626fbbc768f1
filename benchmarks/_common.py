"""What the benchmarks share: subprocesses with their peak memory, and the reports.

Every contender is timed in a process of its own, because peak memory, imports and
warm caches of one would otherwise be part of the next one's figures.
"""

import contextlib
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import psutil

logger = logging.getLogger("benchmarks")

HERE = pathlib.Path(__file__).resolve().parent

_PACKAGES = (
    "skdeepfeat",
    "torch",
    "torchvision",
    "timm",
    "openvino",
    "embetter",
    "scikit-learn",
    "numpy",
    "pillow",
)
_quick = False
_SAMPLING_INTERVAL = 0.1  # seconds between two looks at a worker's children


def describe_machine():
    """Return what the figures depend on: machine, Python and package versions."""
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": _cpu_name(),
        "n_cpus": n_usable_cpus(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def machine_line(machine):
    """Return the description of the machine as one sentence for a report."""
    packages = ", ".join(f"{k} {v}" for k, v in machine["packages"].items())
    return (
        f"Machine: {machine['cpu']}, {machine['n_cpus']} CPUs, "
        f"{machine['memory_gb']} GB, {machine['system']}, Python {machine['python']}, "
        f"{packages}. Started {machine['started']}; other processes took "
        f"{machine['cpu_share_of_others']:.0%} of the machine's CPU time."
    )


@contextlib.contextmanager
def watch_others(machine):
    """Note in `machine` what share of the CPU time others took during the ``with``.

    Figures from a machine that does something else are not worth reading.
    """
    before, own_before, start = _busy_seconds(), _own_seconds(), time.perf_counter()
    yield
    capacity = (time.perf_counter() - start) * psutil.cpu_count()
    others = (_busy_seconds() - before) - (_own_seconds() - own_before)
    machine["cpu_share_of_others"] = round(max(0.0, others / capacity), 3)


def _busy_seconds():
    times = psutil.cpu_times()
    # Linux counts a guest's time in user's already; iowait is idle time.
    return times.user + times.system + getattr(times, "nice", 0.0)


def _own_seconds():
    usages = [resource.getrusage(resource.RUSAGE_SELF)]
    usages.append(resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def n_usable_cpus():
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name():
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def markdown_table(header, rows):
    """Return rows of cells as a Markdown table, first column left, others right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        padded = [row[0].ljust(widths[0])]
        padded += [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append(f"| {' | '.join(padded)} |")
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([lines[0], f"| {' | '.join(rule)} |", *lines[1:]])


def spread(values, digits=1):
    """Return ``median (min to max)``, or the value where there is only one."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def write_results(folder, name, document, report):
    """Write ``name.json`` and ``name.md`` into `folder`; return the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(report + "\n", encoding="utf-8")
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def load_cifar10(path):
    """Return the arrays X_train, y_train, X_test and y_test of a .npz file."""
    if not path.is_file():
        raise SystemExit(f"--cifar10 must name a .npz file. Got {path}.")
    with np.load(path, allow_pickle=False) as data:
        return [data[name] for name in ("X_train", "y_train", "X_test", "y_test")]


def run_seeds(name, arguments, run_seed, report):
    """Run the seeds, write each record at once, and write and print a report.

    Parameters
    ----------
    name : str
        Of the files.
    arguments : argparse.Namespace
        With `seeds` and `output`.
    run_seed : callable
        ``run_seed(seed)`` yields records, dicts of JSON types.
    report : callable
        ``report(records) -> str``
    """
    machine, records = describe_machine(), []
    arguments.output.mkdir(parents=True, exist_ok=True)
    settings = {k: str(v) for k, v in vars(arguments).items() if k != "cifar10"}
    with watch_others(machine):
        for seed in arguments.seeds:
            for record in run_seed(seed):
                records.append(record)
                logger.info("%s", json.dumps(record))
                (arguments.output / f"{name}.json").write_text(json.dumps(records))
    text = f"{report(records)}\n\n{machine_line(machine)}"
    document = {"machine": machine, "settings": settings, "records": records}
    path = write_results(arguments.output, name, document, text)
    print(text)
    logger.info("written to %s", path)


def be_quick():
    """Let `run_worker` fork this process, so that imports happen once.

    For quick forms, and for pairs within one process; not where starting is timed.
    """
    global _quick
    import timm  # noqa: F401

    _quick = sys.platform == "linux"  # elsewhere, forks may crash


def run_worker(script, job, watch=None, python=sys.executable, checkout=None):
    """Run one job in a process of its own and return its result.

    Parameters
    ----------
    script : str
        A file beside this one that ends in a call of `serve`.
    job : dict of JSON types
        Handed to the function of that script that ``job["task"]`` names.
    watch : callable, default=None
        ``watch(process) -> dict`` waits for the process; what it returns is added to
        the result.
    python : path-like, default=sys.executable
        The interpreter, for contenders that do not go into one environment with us.
    checkout : path-like, default=None
        A folder from which the package is imported, not the installed one.

    Returns
    -------
    dict
        What the function returned, and ``peak_mb``: the largest resident memory of
        the process, plus the largest sum of what its children (a DataLoader's
        workers) held for themselves, in 10^6 bytes.

    Raises
    ------
    RuntimeError
        If the process failed. Its own error went to stderr.
    """
    with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as folder:
        job_file, result_file = (pathlib.Path(folder, n) for n in ("job", "result"))
        job_file.write_text(json.dumps(job), encoding="utf-8")
        # No contender may reach for the network, and none for the user's own cache.
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "SKDEEPFEAT_CACHE_DIR": str(pathlib.Path(folder, "cache")),
        }
        if checkout is not None:
            environment["PYTHONPATH"] = str(checkout)
        arguments = [str(HERE / script), str(job_file), str(result_file)]
        if _quick and python == sys.executable:
            from _forks import ForkedPython

            process = ForkedPython(
                arguments, method="fork", capture=False, env=environment
            )
        else:
            process = subprocess.Popen([str(python), *arguments], env=environment)
        children_peak = 0 if watch else _watch_children(process)
        watched = watch(process) if watch else {}
        if process.returncode != 0:
            raise RuntimeError(
                f"{script} {job['task']!r} failed with exit status "
                f"{process.returncode}; see its error above"
            )
        result = json.loads(result_file.read_text(encoding="utf-8"))
    result["peak_mb"] = (result.pop("own_peak") + children_peak) / 1e6
    return {**result, **watched}


def serve(tasks):
    """Run the job that `run_worker` handed to this process.

    Parameters
    ----------
    tasks : dict of str to callable
        Each takes the job, a dict, and returns a dict of JSON types.
    """
    job_file, result_file = sys.argv[1:]
    job = json.loads(pathlib.Path(job_file).read_text(encoding="utf-8"))
    result = tasks[job["task"]](job)
    result["own_peak"] = _own_peak_memory()
    pathlib.Path(result_file).write_text(json.dumps(result), encoding="utf-8")


@contextlib.contextmanager
def count_rows():
    """Count the images that really enter a network in this process, as a list's sum.

    Counted at the network's first convolution, the one that takes the three color
    channels, whoever calls it and whether or not the pass runs to its end. Both
    networks that are measured have exactly one. Shape inference on fake or meta
    tensors computes nothing and does not count.

    Yields
    ------
    list of int
        The size of every batch so far.
    """
    import torch
    from torch.nn.modules.module import register_module_forward_pre_hook

    batches = []

    def look(module, inputs):
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 3:
            images = inputs[0]
            if type(images) is torch.Tensor and images.device.type != "meta":
                batches.append(len(images))

    handle = register_module_forward_pre_hook(look)
    try:
        yield batches
    finally:
        handle.remove()


@contextlib.contextmanager
def count_runs():
    """Count the images that our own runner is given, as a list's sum.

    What a network compiled by another library computes, no hook of torch's sees.

    Yields
    ------
    list of int
        The size of every batch so far.
    """
    from skdeepfeat.networks.running._batch_runner import Runner

    batches, call = [], Runner.__call__

    def counted(runner, batch):
        batches.append(len(batch))
        return call(runner, batch)

    Runner.__call__ = counted
    try:
        yield batches
    finally:
        Runner.__call__ = call


def _watch_children(process):
    """Wait for the process; return the peak of its children's own memory in bytes."""
    peak = 0
    while True:
        try:
            process.wait(_SAMPLING_INTERVAL)
            return peak
        except subprocess.TimeoutExpired:
            held = 0
            with contextlib.suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        # What is shared with the parent counts there already.
                        held += child.memory_full_info().uss
            peak = max(peak, held)


def _own_peak_memory():
    """Return the peak resident memory of this process in bytes."""
    with contextlib.suppress(OSError):
        # Not ru_maxrss here: Linux lets it start at the size of the parent.
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
