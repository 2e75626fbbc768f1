"""Fine-tuning side by side: accuracy on test images against the time it took.

The embedded network on CIFAR-10 images, at 96 pixels, on the same rows: a plain recipe
(a head epoch, then AdamW with one cycle, flips and shifts), skorch with the recipe of
PyTorch's transfer-learning tutorial, and FineTuneClassifier with its default settings.
Writes `fine_tuning.json`, `.md` and `.png` into the output folder.

With `--rates`, only the images/s beside a plain torch loop with the same frozen layers,
in turns; needs no data. Writes `tuning_rates.json` and `.md`. With `--seeds`, the same
contenders are scored on the data, each turn with another seed. See
`benchmarks/README.md`.
"""

import argparse
import logging
import math
import pathlib
import statistics

from _common import (
    HERE,
    be_quick,
    describe_machine,
    machine_line,
    markdown_table,
    run_worker,
    spread,
    watch_others,
    write_results,
)

logger = logging.getLogger("benchmarks.fine_tuning")

DEFAULT_DATA = HERE.parents[1] / "shared" / "data" / "cifar10_5k.npz"

CONTENDERS = {
    "plain recipe, 4 epochs": {"task": "plain", "epochs": 4, "learning_rate": 1e-3},
    "plain recipe, 8 epochs": {"task": "plain", "epochs": 8, "learning_rate": 2e-3},
    "skorch, PyTorch's tutorial": {"task": "skorch", "epochs": 8},
    "skdeepfeat, 4 epochs": {"task": "ours", "epochs": 4},
    "skdeepfeat, default settings": {"task": "ours", "epochs": None},
}
# What the default settings were compared with; run on request only.
ALTERNATIVES = {
    "skdeepfeat, statistics of batches": {
        "task": "ours",
        "epochs": None,
        "parameters": {"freeze_batch_norm": False},
    },
    "skdeepfeat, rate 2e-3": {
        "task": "ours",
        "epochs": None,
        "parameters": {"learning_rate": 2e-3},
    },
    "skdeepfeat, mixup 0.2": {
        "task": "ours",
        "epochs": None,
        "parameters": {"mixup": 0.2},
    },
}

# Images, batch size and epochs by network and image size.
RATES = {
    "efficientnet_lite0 64": (160, 32, 8),
    "efficientnet_lite0 224": (64, 32, 8),
    "resnet50 224": (64, 32, 8),
}
LOOP = "plain loop"
RATED = {
    LOOP: {"task": "loop"},
    "skdeepfeat": {"task": "ours", "precision": "float32"},
    "skdeepfeat, bfloat16": {"task": "ours", "precision": "bfloat16"},
}
# What is trained, and who else takes part.
RATED_PARTS = {
    "all": {},
    1: {
        f"{name}, n_views={n_views}": {**contender, "n_views": n_views}
        for name, contender in RATED.items()
        if name != LOOP
        for n_views in (2, 4)
    },
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=pathlib.Path, default=DEFAULT_DATA, help="the .npz file")
    add("--image-size", type=int, default=96, help="pixels (96)")
    add("--n-train", type=int, default=5000, help="training images (5000)")
    add(
        "--contenders",
        nargs="+",
        choices=[*CONTENDERS, *ALTERNATIVES],
        default=list(CONTENDERS),
    )
    add(
        "--held-out",
        type=int,
        default=0,
        help="score on this many held-out training images, not on the test images",
    )
    add(
        "--epochs",
        type=int,
        help="the number of epochs of every contender, instead of its own",
    )
    add("--device", default="cpu", help="of skdeepfeat (cpu)")
    add("--rates", nargs="*", metavar="NETWORK SIZE", help="only images/s (see above)")
    add("--repeats", type=int, default=2, help="turns of the rates (2)")
    add("--seeds", type=int, help="so many turns at 64 pixels, scored on the data")
    add(
        "--trained",
        nargs="+",
        choices=[str(part) for part in RATED_PARTS],
        default=[str(part) for part in RATED_PARTS],
        help="which stages are trained for rates and seeds",
    )
    add("--quick", action="store_true", help="a smoke run; its times mean nothing")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    arguments = parser.parse_args(argv)
    if arguments.rates is not None and arguments.seeds is None:
        return arguments
    if not arguments.data.is_file():
        raise SystemExit(
            "--data must name a .npz file with X_train, y_train, X_test, y_test, "
            "images as uint8 of shape (n, 32, 32, 3). There is no file "
            f"{str(arguments.data)!r}."
        )
    return arguments


def run_rates(arguments):
    """Return for each network and what is trained the rates of all, in turns."""
    n_turns, sizes, data = arguments.repeats, RATES, {}
    if arguments.seeds is not None:
        n_turns = arguments.seeds
        sizes = {"efficientnet_lite0 64": (arguments.n_train, 32, 8)}
        data = {"data": str(arguments.data)}
    if arguments.quick:
        sizes = {"efficientnet_lite0 32": (8, 4, 2)}
    wanted = arguments.rates or list(sizes)
    if set(wanted) - set(sizes):
        raise SystemExit(f"--rates must be of {list(sizes)}. Got {wanted}.")
    results = {}
    for title in wanted:
        network, size = title.split()
        n_images, batch_size, epochs = sizes[title]
        for unfreeze, more in RATED_PARTS.items():
            if str(unfreeze) not in arguments.trained:
                continue
            turns = results[f"{title}, unfreeze={unfreeze!r}"] = {}
            for turn in range(n_turns):
                for name, job in {**RATED, **more}.items():
                    job = {
                        **job,
                        **data,
                        "seed": turn,
                        "network": network,
                        "image_size": int(size),
                        "n_images": n_images,
                        "batch_size": batch_size,
                        "epochs": epochs,
                        "unfreeze": unfreeze,
                        "device": arguments.device,
                    }
                    result = run_worker("_tuning_rates.py", job)
                    turns.setdefault(name, []).append({**job, **result})
                    rate = result["images_per_s"]
                    logger.info("%s, %s: %.1f images/s", title, name, rate)
                    logger.info("accuracy %s", result["accuracy"])
    return results


def report_rates(document):
    """Return a table; its ratios are medians of those of the turns."""
    header = ["", "images/s", "x the loop", "x, of processor time", "peak, MB"]
    tables = []
    for title, turns in document["results"].items():
        rows = []
        for name, results in turns.items():
            ratios = {
                key: statistics.median(
                    mine[key] / loop[key]
                    for mine, loop in zip(results, turns[LOOP], strict=True)
                )
                for key in ("images_per_s", "images_per_cpu_s")
            }
            row = [
                name,
                spread([one["images_per_s"] for one in results]),
                *(f"{ratio:.2f}" for ratio in ratios.values()),
                f"{max(one['peak_mb'] for one in results):.0f}",
            ]
            if results[0]["accuracy"] is not None:
                row += _accuracies(results, turns["skdeepfeat"])
            rows.append(row)
        if len(rows[0]) > len(header):
            header += ["accuracy, %", "less skdeepfeat's"]
        tables.append(markdown_table([title, *header[1:]], rows))
    return "\n\n".join([*tables, machine_line(document["machine"])])


def _accuracies(results, others):
    """Return the mean accuracy, and the mean difference with its standard error."""
    mine = [100 * one["accuracy"] for one in results]
    less = [a - 100 * other["accuracy"] for a, other in zip(mine, others, strict=True)]
    error = statistics.stdev(less) / len(less) ** 0.5 if len(less) > 1 else math.nan
    return [
        f"{statistics.mean(mine):.1f}",
        f"{statistics.mean(less):+.1f} ± {error:.1f}",
    ]


def main_of_rates(arguments):
    document = {"machine": describe_machine(), "device": arguments.device}
    with watch_others(document["machine"]):
        document["results"] = run_rates(arguments)
    text = report_rates(document)
    path = write_results(arguments.output, "tuning_rates", document, text)
    print(f"{text}\n\nAll single results: {path}")


def report(document):
    results = document["results"]
    best_other = max(
        (r["curve"][-1][1] for r in results.values() if r["task"] != "ours"),
        default=None,
    )
    rows = []
    for name, result in results.items():
        seconds, accuracy = result["curve"][-1]
        row = [name, len(result["curve"]), f"{seconds:.0f}", f"{accuracy:.4f}"]
        row.append(_time_to(best_other, result["curve"]))
        rows.append(row)
    header = [
        f"CIFAR-10 at {document['image_size']} px, "
        f"{document['n_train'] - document['held_out']} images",
        "epochs, the head's included",
        "seconds",
        "accuracy on held-out images" if document["held_out"] else "test accuracy",
        "seconds to the best of the others",
    ]
    lines = [markdown_table(header, rows)]
    frozen = [r["frozen_accuracy"] for r in results.values() if "frozen_accuracy" in r]
    if frozen:
        lines.append(
            "Logistic regression on the frozen features of the same size: "
            f"{frozen[0]:.4f}."
        )
    return "\n\n".join([*lines, machine_line(document["machine"])])


def _time_to(accuracy, curve):
    """Return the seconds after which a curve has reached an accuracy."""
    if accuracy is None:
        return ""
    reached = [seconds for seconds, value in curve if value >= accuracy]
    return f"{reached[0]:.0f}" if reached else "never"


def draw(document, path):
    """Draw test accuracy against time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, result in document["results"].items():
        seconds, values = zip(*result["curve"], strict=True)
        ax.plot([s / 60 for s in seconds], values, marker="o", markersize=3, label=name)
    ax.set(
        xlabel="minutes of training",
        ylabel="test accuracy",
        title=f"Fine-tuning on {document['n_train']} CIFAR-10 images",
    )
    ax.grid(alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=150)


def main(argv=None):
    arguments = parse_arguments(argv)
    if arguments.quick:
        be_quick()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.rates is not None or arguments.seeds is not None:
        main_of_rates(arguments)
        return
    document = {
        "machine": describe_machine(),
        "image_size": arguments.image_size,
        "n_train": arguments.n_train,
        "held_out": arguments.held_out,
        "results": {},
    }
    with watch_others(document["machine"]):
        for name in arguments.contenders:
            job = {
                **{**CONTENDERS, **ALTERNATIVES}[name],
                "data": str(arguments.data),
                "image_size": arguments.image_size,
                "n_train": arguments.n_train,
                "held_out": arguments.held_out,
                "device": arguments.device,
            }
            if arguments.epochs is not None:
                job["epochs"] = arguments.epochs
            result = run_worker("_fine_tuners.py", job)
            document["results"][name] = {"task": job["task"], **result}
            logger.info("%s: %s", name, result["curve"][-1])
    text = report(document)
    path = write_results(arguments.output, "fine_tuning", document, text)
    draw(document, path.with_suffix(".png"))
    print(f"{text}\n\nAll single results: {path}")


if __name__ == "__main__":
    main()
