"""Is one version of the package slower than another? Pairs of runs, in turn.

    git worktree add /tmp/old v0.1
    python benchmarks/two_versions.py /tmp/old [--new .] [--pairs 10] [--quick]

Every run is a process of its own. The machine's speed drifts, so only the two runs of
a pair are compared, by their ratio. The interval of the median ratio lies between two
order statistics. It covers the true median in at least 95 % of cases, whatever the
distribution.
"""

import argparse
import pathlib
import statistics
import tempfile

import numpy as np
import scipy.stats
from _common import (
    be_quick,
    describe_machine,
    machine_line,
    markdown_table,
    run_worker,
    watch_others,
    write_results,
)
from _images import make_tiny_images, write_natural_images, write_tiny_images

# What each case reads. The installed network computes the features of a cold case in
# every run, with an empty cache. Those of a warm case are known before the first pair.
CASES = {
    "cold, files": "files",
    "cold, arrays": "arrays",
    "warm, files": "tiny_files",
    "warm, arrays": "tiny_arrays",
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=pathlib.Path, help="a checkout of the old version")
    parser.add_argument("--new", type=pathlib.Path, default=pathlib.Path())
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--n-cold", type=int, default=512, help="images per cold run")
    parser.add_argument("--n-warm", type=int, default=5_000, help="images, warm run")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--quick", action="store_true", help="a pair of a few images")
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    options = parser.parse_args()
    if options.quick:
        be_quick()
        options.pairs, options.n_cold, options.n_warm = 1, 4, 16
    versions = {"old": options.old.resolve(), "new": options.new.resolve()}
    for path in versions.values():
        if not (path / "skdeepfeat").is_dir():
            parser.error(f"{path} is not a checkout of the package")
    machine = describe_machine()
    with (
        watch_others(machine),
        tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as folder,
    ):
        images = _write_images(pathlib.Path(folder), options.n_cold, options.n_warm)
        cases = {case: images[CASES[case]] for case in options.cases}
        results = _measure(versions, cases, pathlib.Path(folder), options.pairs)
    report = f"{_report(results)}\n\n{machine_line(machine)}"
    print(report)
    document = {"machine": machine, "seconds": results}
    write_results(options.output, "two_versions", document, report)


def _write_images(folder, n_cold, n_warm):
    lists = {
        "files": write_natural_images(folder / "photos", n_cold),
        "tiny_files": write_tiny_images(folder / "tiny", n_warm),
    }
    found = {}
    for name, paths in lists.items():
        found[name] = folder / f"{name}.txt"
        found[name].write_text("\n".join(paths), encoding="utf-8")
    found["arrays"] = folder / "arrays.npy"
    rng = np.random.default_rng(0)
    np.save(found["arrays"], rng.integers(0, 256, (n_cold, 224, 224, 3), np.uint8))
    found["tiny_arrays"] = folder / "tiny_arrays.npy"
    np.save(found["tiny_arrays"], make_tiny_images(n_warm))
    return {name: str(path) for name, path in found.items()}


def _measure(versions, cases, folder, n_pairs):
    """Return the seconds of every run: {case: {"old": [...], "new": [...]}}."""

    def run(case, version):
        with tempfile.TemporaryDirectory(dir=folder) as empty:
            is_cold = case.startswith("cold")
            cache = empty if is_cold else str(folder / f"{case}, {version}")
            job = {"images": cases[case], "cache": cache}
            job["task"] = "cold" if is_cold else "warm"
            return run_worker("_one_version.py", job, checkout=versions[version])

    for case in cases:
        if case.startswith("warm"):
            for version in versions:
                run(case, version)
    results = {}
    for pair in range(n_pairs):
        order = list(versions) if pair % 2 == 0 else list(versions)[::-1]
        for case in cases:
            for version in order:
                for call, seconds in run(case, version)["seconds"].items():
                    one = results.setdefault(f"{case}{call}", {"old": [], "new": []})
                    one[version].append(seconds)
    return results


def _report(results):
    rows = []
    for case, seconds in results.items():
        ratios = np.divide(seconds["new"], seconds["old"])
        low, high = median_interval(ratios)
        rows.append(
            [
                case,
                len(ratios),
                f"{statistics.median(seconds['old']):.3f}",
                f"{statistics.median(seconds['new']):.3f}",
                f"{np.median(ratios):.3f}",
                f"{low:.3f} to {high:.3f}",
            ]
        )
    header = ["case", "pairs", "old, s", "new, s", "new / old", "95 % interval"]
    return markdown_table(header, rows)


def median_interval(values, coverage=0.95):
    """Return the narrowest pair of order statistics that covers the median so often.

    Parameters
    ----------
    values : sequence of float
    coverage : float, default=0.95

    Returns
    -------
    tuple of float
        The extremes where there are too few values.
    """
    ordered, n = np.sort(values), len(values)
    # The number of values below the median is binomial with p = 1/2.
    outside = 2 * scipy.stats.binom(n, 0.5).cdf(np.arange(n)) <= 1 - coverage
    cut = max(int(outside.sum()) - 1, 0)
    return float(ordered[cut]), float(ordered[n - 1 - cut])


if __name__ == "__main__":
    main()
