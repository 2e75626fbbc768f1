"""Is the package slower than it was? Ratios to plain code, against stored ones.

    python benchmarks/ratios.py [--record] [--cases ...] [--checkout FOLDER] [--quick]
    python benchmarks/ratios.py --table

What `make bench-quick` runs, and CI with it. Each case does the same in our way and in
a plain one, in turns, with one thread; the median quotient of the processor times is
compared with the newest stored one of the same kind of processor. A case that is more
than 20 % above it is repeated, up to 3 times, and its best median counts: what else a
machine does makes a ratio worse in one run, and a slow-down in all of them. If it stays
above, the exit status is 1. A kind of processor without figures compares nothing.

`--record` adds the figures to `benchmarks/history.json`, which has an entry for each
commit; `--table` prints it. `--checkout` measures another version of the package. See
`benchmarks/README.md` for how much figures vary.
"""

import argparse
import functools
import json
import logging
import os
import pathlib
import statistics
import subprocess
import sys

import torch
from _common import (
    HERE,
    be_quick,
    describe_machine,
    machine_line,
    markdown_table,
    run_worker,
    watch_others,
    write_results,
)

logger = logging.getLogger("benchmarks.ratios")

HISTORY = HERE / "history.json"

ALLOWED = 1.2
# How often a case is measured at most before it counts as slower.
N_TRIALS = 4

CASES = {
    "cold, files": {"task": "cold", "n_images": 64, "n": 2},
    "cold, files, to the network alone": {
        "task": "beside_the_network",
        "n_images": 128,
        "n": 3,
    },
    "warm, files": {"task": "warm", "n_images": 2000, "n": 15},
    "first call": {"task": "first_call", "n_images": 200, "n": 2},
    "tuning, all": {"task": "tuning", "n_images": 96, "n": 2, "unfreeze": "all"},
    "tuning, last stage, n_views=1": {
        "task": "tuning",
        "n_images": 96,
        "n": 2,
        "unfreeze": 1,
        "n_views": 1,
    },
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    add("--record", action="store_true", help="add the ratios to the history")
    add("--table", action="store_true", help="only print the history")
    add("--checkout", type=pathlib.Path, help="of another version of the package")
    add("--history", type=pathlib.Path, default=HISTORY)
    add("--quick", action="store_true", help="a smoke run; its ratios mean nothing")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    return parser.parse_args(argv)


def measure(name, arguments):
    """Return the quotients of the pairs of a case."""
    job = dict(CASES[name])
    if arguments.quick:
        job |= {"n_images": 8, "n": 1}
    result = run_worker("_ratios.py", job, checkout=arguments.checkout)
    logger.info("%s: %s", name, [round(ratio, 3) for ratio in result["pairs"]])
    return result["pairs"]


def measure_again(pairs, before, trial):
    """Return the pairs with the best median of up to four trials.

    Parameters
    ----------
    pairs : list of float
        Of the first trial.
    before : float or None
        The stored ratio. If none is, or the first is not above it by a fifth, the
        first trial is the only one.
    trial : callable
        Returns the pairs of another trial.
    """
    for _ in range(N_TRIALS - 1):
        if before is None or statistics.median(pairs) <= ALLOWED * before:
            break
        pairs = min(pairs, trial(), key=statistics.median)
    return pairs


def stored_ratios(history, processor):
    """Return the newest ratio of each case on a kind of processor."""
    newest = {}
    for record in history:
        if record["processor"] == processor:
            newest |= record["ratios"]
    return newest


def compare(pairs, stored):
    """Return a row for each case, and the names of those that became slower."""
    rows, slower = [], []
    for name, quotients in pairs.items():
        ratio, before = statistics.median(quotients), stored.get(name)
        change = "-" if before is None else f"{ratio / before:.2f}"
        if before is not None and ratio > ALLOWED * before:
            slower.append(name)
        extremes = f"{min(quotients):.2f} to {max(quotients):.2f}"
        was = "-" if before is None else f"{before:.2f}"
        rows.append([name, f"{ratio:.2f}", extremes, was, change])
    return rows, slower


def commit_of(folder):
    """Return the commit of a checkout and its date, None where there is no git."""
    command = ["git", "-C", str(folder), "log", "-1", "--format=%h %cs"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None, None
    commit, date = done.stdout.split()
    return commit, date


def recorded(history, record):
    """Return the history with a record, joined to one of the same commit."""
    same = ("version", "commit", "processor")
    for known in history:
        if all(known[key] == record[key] for key in same):
            ratios = {**known["ratios"], **record["ratios"]}
            joined = {**record, "ratios": ratios}
            return [joined if one is known else one for one in history]
    return [*history, record]


def history_table(history):
    """Return the history as a Markdown table, a row for each commit."""
    names = [
        name for name in CASES if any(name in record["ratios"] for record in history)
    ]
    rows = [
        [
            f"{record['version']}, {record['commit'] or '-'}",
            record["date"],
            record["processor"],
            *(record["ratios"].get(name, "-") for name in names),
        ]
        for record in history
    ]
    return markdown_table(["version, commit", "date", "processor", *names], rows)


def main(argv=None):
    arguments = parse_arguments(argv)
    # Forks of this process import nothing anew, which no case measures.
    be_quick()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.environ["OMP_NUM_THREADS"] = "1"
    history = []
    if arguments.history.is_file():
        history = json.loads(arguments.history.read_text(encoding="utf-8"))
    if arguments.table:
        print(history_table(history))
        return
    machine = describe_machine()
    # The ratio of a network to the work around it differs between makes, too.
    processor = f"{machine['cpu']}, {torch.backends.cpu.get_cpu_capability()}"
    stored, pairs = stored_ratios(history, processor), {}
    with watch_others(machine):
        for name in arguments.cases:
            pairs[name] = measure_again(
                measure(name, arguments),
                None if arguments.record else stored.get(name),
                functools.partial(measure, name, arguments),
            )
    rows, slower = compare(pairs, stored)
    header = [f"ours / plain, {processor}", "median", "pairs", "stored", "change"]
    text = f"{markdown_table(header, rows)}\n\n{machine_line(machine)}"
    document = {"machine": machine, "processor": processor, "pairs": pairs}
    write_results(arguments.output, "ratios", document, text)
    print(text)
    if arguments.record:
        commit, date = commit_of(arguments.checkout or HERE)
        record = {
            "version": machine["packages"].get("skdeepfeat", "unknown"),
            "commit": commit,
            "date": date or machine["started"][:10],
            "processor": processor,
            "cpu_share_of_others": machine["cpu_share_of_others"],
            "torch": machine["packages"]["torch"],
            "ratios": {k: round(statistics.median(v), 3) for k, v in pairs.items()},
        }
        text = json.dumps(recorded(history, record), indent=2)
        arguments.history.write_text(text + "\n", encoding="utf-8")
    elif slower:
        sys.exit(f"More than 20 % slower than stored: {', '.join(slower)}.")


if __name__ == "__main__":
    main()
