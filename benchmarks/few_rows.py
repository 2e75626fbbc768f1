"""What tens and hundreds of images cost: torch, and the first and second process.

    python benchmarks/few_rows.py [--model NAME] [--sizes 32 128 1024] [--clock wall]

Each number of images is transformed by new processes in turns: by torch; by the first
process of this network, which has to find out whether converting it pays; and by a
second one, which finds the converted network in the cache. (Where it did not pay in the
first one, another process of many images has converted it.) No image is known before.
The network has random weights, as no download is made. `--clock cpu` counts the
processor's seconds, for machines that are busy with other work; set OMP_NUM_THREADS=1
then, as threads that wait count, too.
"""

import argparse
import itertools
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

# To reach: seconds that the second process may start later than torch, and shares of
# the rate of the largest job.
LATEST = 0.3
SHARES = {32: 0.8, 128: 0.9}


def measure(arguments):
    """Return for each number of images and kind of process what its runs took."""
    seeds = itertools.count()

    def run(n_images, runtime, cache):
        return run_worker(
            "_few_rows.py",
            {
                "task": "transform",
                "model": arguments.model,
                "image_size": arguments.image_size,
                "clock": arguments.clock,
                "n_images": n_images,
                "runtime": runtime,
                "cache": cache,
                "seed": next(seeds),
            },
        )

    found = {}
    with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as converted:
        run(1, "openvino", converted)
        for n_images in arguments.sizes:
            # The largest job takes minutes, and has many batches to average over.
            n_repeats = 1 if n_images > 1000 else arguments.repeats
            runs = {"torch": [], "first": [], "second": []}
            is_largest = n_images == max(arguments.sizes)
            for _ in range(n_repeats):
                if not (is_largest and arguments.quick_reference):
                    with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as new:
                        runs["torch"].append(run(n_images, "torch", new))
                        runs["first"].append(run(n_images, "auto", new))
                runs["second"].append(run(n_images, "auto", converted))
            found[n_images] = runs
    return found


def median(runs, part):
    """Return the median over runs of a part's seconds."""
    return statistics.median(one[part] for one in runs)


def report(found):
    """Return the results as a Markdown table, and what was to be reached."""
    rows, lines = [], []
    largest = max(found)
    best = largest / median(found[largest]["second"], "rows")
    for n_images, kinds in found.items():
        for kind, runs in kinds.items():
            if not runs:
                continue
            seconds = [spread([one[p] for one in runs], 2) for p in ("start", "rows")]
            rate = n_images / median(runs, "rows")
            whole = "-"
            if kinds["torch"]:
                ratio = median(runs, "whole") / median(kinds["torch"], "whole")
                whole = f"{ratio:.2f}"
            rows.append([f"{n_images}, {kind}", *seconds, f"{rate:.1f}", whole])
        if not kinds["torch"]:
            continue
        late = median(kinds["second"], "start") - median(kinds["torch"], "start")
        share = n_images / median(kinds["second"], "rows") / best
        lines.append(
            f"{n_images} images: the second process starts {late:+.2f} s after torch "
            f"(to reach: {LATEST}), at {share:.2f} of the rate of {largest}"
            + (f" (to reach: {SHARES[n_images]})." if n_images in SHARES else ".")
        )
    header = [
        "images, process",
        "to the first batch, s",
        "from it to the last row, s",
        "images/s",
        "whole, to torch",
    ]
    return "\n\n".join([markdown_table(header, rows), *lines])


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 128, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument(
        "--quick-reference",
        action="store_true",
        help="the largest number of images by the second process only",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run; its figures mean nothing"
    )
    parser.add_argument("--output", type=pathlib.Path, default="bench_output")
    arguments = parser.parse_args(argv)
    if arguments.quick:
        be_quick()
    machine = describe_machine()
    with watch_others(machine):
        found = measure(arguments)
    text = f"{report(found)}\n\nSeconds: {arguments.clock}. {machine_line(machine)}"
    print(text)
    document = {"machine": machine, "clock": arguments.clock, "results": found}
    write_results(arguments.output, "few_rows", document, text)


if __name__ == "__main__":
    main()
