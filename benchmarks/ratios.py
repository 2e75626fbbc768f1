"""Is the package slower than it was? Ratios to plain code, against stored ones.

    python benchmarks/ratios.py [--record] [--cases ...] [--quick]

What `make bench-quick` runs. Each case does the same in our way and
in a plain one, in turns, with one thread; the median quotient of the processor times is
compared with the newest stored one of the same kind of processor. More than 20 % above
it is a slow-down, and the exit status 1. `--record` appends the figures to
`benchmarks/ratios.json`, the history by version. See `benchmarks/README.md` for how
much they vary by themselves.
"""

import argparse
import json
import logging
import os
import pathlib
import statistics

import torch
from _common import (
    HERE,
    describe_machine,
    machine_line,
    markdown_table,
    run_worker,
    watch_others,
    write_results,
)

logger = logging.getLogger("benchmarks.ratios")

HISTORY = HERE / "ratios.json"

ALLOWED = 1.2

CASES = {
    "cold, files": {"task": "cold", "n_images": 64, "n": 5},
    "cold, files, to the network alone": {
        "task": "beside_the_network",
        "n_images": 128,
        "n": 5,
    },
    "warm, files": {"task": "warm", "n_images": 2000, "n": 15},
    "first call": {"task": "first_call", "n_images": 200, "n": 3},
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
    add("--record", action="store_true", help="append the ratios to the history")
    add("--history", type=pathlib.Path, default=HISTORY)
    add("--quick", action="store_true", help="a smoke run; its ratios mean nothing")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    return parser.parse_args(argv)


def measure(arguments):
    """Return for each case the quotients of its pairs."""
    os.environ["OMP_NUM_THREADS"] = "1"
    found = {}
    for name in arguments.cases:
        job = dict(CASES[name])
        if arguments.quick:
            job |= {"n_images": 8, "n": 1}
        found[name] = run_worker("_ratios.py", job)["pairs"]
        logger.info("%s: %s", name, [round(ratio, 3) for ratio in found[name]])
    return found


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


def main(argv=None):
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    machine = describe_machine()
    processor = torch.backends.cpu.get_cpu_capability()
    with watch_others(machine):
        pairs = measure(arguments)
    history = []
    if arguments.history.is_file():
        history = json.loads(arguments.history.read_text(encoding="utf-8"))
    rows, slower = compare(pairs, stored_ratios(history, processor))
    header = [f"ours / plain, {processor}", "median", "pairs", "stored", "change"]
    text = f"{markdown_table(header, rows)}\n\n{machine_line(machine)}"
    document = {"machine": machine, "processor": processor, "pairs": pairs}
    write_results(arguments.output, "ratios", document, text)
    print(text)
    if arguments.record:
        record = {
            "version": machine["packages"].get("skdeepfeat", "unknown"),
            "date": machine["started"][:10],
            "processor": processor,
            "cpu_share_of_others": machine["cpu_share_of_others"],
            "torch": machine["packages"]["torch"],
            "ratios": {k: round(statistics.median(v), 3) for k, v in pairs.items()},
        }
        text = json.dumps([*history, record], indent=2)
        arguments.history.write_text(text + "\n", encoding="utf-8")
    elif slower:
        raise SystemExit(f"More than 20 % slower than stored: {', '.join(slower)}.")


if __name__ == "__main__":
    main()
