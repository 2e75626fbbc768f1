"""What smaller networks score, weigh and take, on CIFAR-10 images.

Two networks are made smaller by several methods and limits: a VGG-like one, trained
from scratch here, and the installed network, tuned. Then criteria of pruning are
compared at equal size, and a widened network with one that was trained from scratch.
Each result is added to ``compression.json`` at once, so parts can run one by one;
``compression.md`` is written at the end. See `benchmarks/README.md`.
"""

import argparse
import json
import logging
import pathlib
import time
import warnings

import numpy as np
import torch
from _common import (
    HERE,
    describe_machine,
    load_cifar10,
    machine_line,
    markdown_table,
    watch_others,
)
from sklearn.model_selection import train_test_split
from torch import nn

from skdeepfeat import FineTuneClassifier
from skdeepfeat.compression import compress, compression_curve

logger = logging.getLogger("benchmarks.compression")

DATA = HERE.parents[1] / "shared" / "data" / "cifar10_5k.npz"
PARTS = ("vgg", "tuned", "criteria", "net2net")
METHODS = {
    "low_rank": "low_rank",
    "tucker": "tucker",
    "prune": "prune",
    "prune, low_rank": ["prune", "low_rank"],
}
CRITERIA = ("magnitude", "taylor", "obd", "apoz")
# Of a random split: `compress` finds the same one, so that its validation part has
# images that the network has not seen.
SPLIT_SEED = 0
FRACTION = 0.25


class VggLike(nn.Module):
    """Three pairs of convolutions, a hidden layer, and a head."""

    def __init__(self, widths=(32, 64, 128), n_hidden=256):
        super().__init__()
        layers, n_in = [], 3
        for width in widths:
            for n in (n_in, width):
                layers += [
                    nn.Conv2d(n, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                ]
            layers.append(nn.MaxPool2d(2))
            n_in = width
        self.features = nn.Sequential(*layers)
        self.hidden = nn.Linear(n_in * 16, n_hidden)
        self.head = nn.Linear(n_hidden, 10)

    def forward(self, images):
        """Return the scores of the classes."""
        return self.head(self.hidden(self.features(images).flatten(1)).relu())


def from_scratch(arguments, model, images, n_epochs, seed=0):
    """Return an untrained estimator whose training begins with random weights."""
    # Phase one trains the head on what the network returns in evaluation mode, where
    # batch normalizations need statistics.
    pixels = torch.from_numpy(images[:512]).permute(0, 3, 1, 2) / 255
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None
    with torch.no_grad():
        model.train()((pixels - 0.45) / 0.25)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.1
    return FineTuneClassifier(
        model,
        preprocessing={"resize": 32, "crop": (32, 32)},
        head_init="random",
        head_epochs=2,
        max_epochs=n_epochs,
        learning_rate=2e-3,
        layer_decay=1.0,
        freeze_batch_norm=False,
        cache=None,
        device=arguments.device,
        random_state=seed,
    )


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cifar10", type=pathlib.Path, default=DATA, help=".npz")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add("--drops", type=float, nargs="+", default=[0.01, 0.03])
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the criteria")
    add("--round-epochs", type=int, nargs="+", default=[0, 2], help="of the criteria")
    add("--image-size", type=int, default=96, help="of the tuned network (96)")
    add("--vgg-epochs", type=int, default=15)
    add("--tuned-epochs", type=int, default=3)
    add("--n-images", type=int, default=5000, help="to train with and to compress")
    add("--n-test", type=int, default=2000, help="test images (2,000)")
    add("--refine-epochs", type=int, help="default: 2 of the tuned network")
    add("--runtimes", nargs="+", default="installed", help="that are timed")
    add("--device", default="cpu")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    return parser.parse_args(argv)


def training_part(images, labels):
    """Return the images that `compress` does not score with."""
    rows, _ = train_test_split(
        np.arange(len(labels)),
        test_size=FRACTION,
        random_state=np.random.RandomState(SPLIT_SEED),
        stratify=labels,
    )
    rows.sort()
    return images[rows], labels[rows]


def trained(name, images, labels, arguments):
    """Return a network trained on the training part, from a file if there is one."""
    path = arguments.output / f"{name}.safetensors"
    model = VggLike() if name == "vgg" else None
    if path.exists():
        return FineTuneClassifier.load(path, model=model).set_params(cache=None)
    if name == "vgg":
        clf = from_scratch(arguments, model, images, arguments.vgg_epochs)
    else:
        clf = FineTuneClassifier(
            image_size=arguments.image_size,
            max_epochs=arguments.tuned_epochs,
            cache=None,
            device=arguments.device,
            random_state=0,
        )
    start = time.perf_counter()
    clf.fit(*training_part(images, labels))
    logger.info("%s: trained in %.0f s", name, time.perf_counter() - start)
    clf.save(path)
    return clf


def compressed(clf, method, drop, images, labels, tests, **settings):
    """Return a record of `compress`."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        small = compress(
            clf,
            images,
            labels,
            method=METHODS[method],
            max_score_drop=drop,
            validation_fraction=FRACTION,
            random_state=SPLIT_SEED,
            **settings,
        )
    return {
        "method": method,
        "drop": drop,
        "test": small.score(*tests),
        "summary": small.compression_summary_.to_dict("records"),
        "warnings": [str(one.message) for one in caught],
        "seconds": time.perf_counter() - start,
    }


def run_table(name, data, arguments):
    """Yield a record for each method and limit."""
    images, labels, tests = data
    clf = trained(name, images, labels, arguments)
    if name == "tuned":
        # Its training is slow, so it sees half of the test images, all of them new.
        parts = train_test_split(
            *tests, test_size=0.5, random_state=0, stratify=tests[1]
        )
        (images, labels), tests = parts[::2], parts[1::2]
    n_epochs = arguments.refine_epochs
    if n_epochs is None:
        n_epochs = 2 if name == "tuned" else "auto"
    settings = {"fine_tune_epochs": n_epochs, "runtimes": arguments.runtimes}
    yield {"part": name, "method": "as it is", "test": clf.score(*tests)}
    for drop in arguments.drops:
        for method in arguments.methods:
            record = compressed(clf, method, drop, images, labels, tests, **settings)
            yield {"part": name, **record}


def run_criteria(data, arguments):
    """Yield a record for each criterion, seed, and number of epochs after a round."""
    images, labels, tests = data
    clf = trained("vgg", images, labels, arguments)
    for seed in arguments.seeds:
        for n_epochs in arguments.round_epochs:
            for criterion in CRITERIA:
                # Test images, which are the only ones that the network has not seen.
                curve = compression_curve(
                    clf,
                    *tests,
                    method="prune",
                    steps=3,
                    criterion=criterion,
                    fine_tune_epochs=n_epochs,
                    validation_fraction=0.5,
                    runtimes=["torch"],  # no times are reported
                    random_state=seed,
                )
                columns = ["score", "multiply_adds", "parameters"]
                yield {
                    "part": "criteria",
                    "criterion": criterion,
                    "seed": seed,
                    "epochs": n_epochs,
                    "curve": curve[columns].to_dict("records"),
                }


def run_net2net(data, arguments):
    """Yield a record for a widened network, and for one trained twice as long."""
    from skdeepfeat.compression import widen

    images, labels, tests = data
    clf = trained("vgg", images, labels, arguments)
    part = training_part(images, labels)
    wide = widen(clf, 1.5, random_state=0)
    record = {"part": "net2net", "name": "widened", "epochs": 0}
    yield {**record, "test": wide.score(*tests)}
    wide.set_params(warm_start=True, max_epochs=3).fit(*part)
    yield {**record, "epochs": 3, "test": wide.score(*tests)}
    wide = VggLike((48, 96, 192), 384)
    scratch = from_scratch(arguments, wide, images, 6).fit(*part)
    record["name"] = "from scratch"
    yield {**record, "epochs": 6, "test": scratch.score(*tests)}


def describe_table(records):
    """Return the table of one network."""
    rows = []
    for record in records:
        if record["method"] == "as it is":
            before = record
            continue
        first, last = record["summary"][0], record["summary"][-1]
        if not rows:
            rows.append(_row("as it is", "", before["test"], first, first))
        drop = f"{100 * record['drop']:g}"
        rows.append(_row(record["method"], drop, record["test"], last, first))
    times = [name for name in first if name.startswith("ms_per_image")]
    header = ["network", "allowed drop", "validation", "test", "parameters", "MB"]
    for name in times:
        runtime, batch = name.removeprefix("ms_per_image_").rsplit("_", 1)
        header.append(f"{runtime}, batch {batch}")
    return markdown_table(header, rows)


def _row(name, drop, test, summary, first):
    cells = [name, drop, f"{100 * summary['score']:.1f}", f"{100 * test:.1f}"]
    for column, text in (("parameters", "{:,.0f}"), ("bytes", "{:.2f}")):
        value = summary[column] / (1e6 if column == "bytes" else 1)
        ratio = first[column] / summary[column]
        cells.append(f"{text.format(value)} ({ratio:.1f}x)")
    for column, value in summary.items():
        if column.startswith("ms_per_image"):
            cells.append(f"{value:.2f} ({first[column] / value:.1f}x)")
    return cells


def describe_criteria(records):
    """Return the mean scores of the criteria over the seeds."""
    rows = []
    for n_epochs in sorted({record["epochs"] for record in records}):
        for criterion in CRITERIA:
            curves = [
                record["curve"]
                for record in records
                if (record["epochs"], record["criterion"]) == (n_epochs, criterion)
            ]
            scores = np.array([[row["score"] for row in one] for one in curves])
            adds = np.array([[row["multiply_adds"] for row in one] for one in curves])
            cells = [
                f"{100 * mean:.1f} ± {100 * std:.1f}"
                for mean, std in zip(scores.mean(0), scores.std(0), strict=True)
            ]
            shares = (adds / adds[:, :1]).mean(0)[1:]
            rows.append([criterion, n_epochs, *cells, len(curves)])
    left = [f"{100 * share:.0f} % left" for share in shares]
    header = ["criterion", "epochs a round", "as it is", *left, "seeds"]
    return markdown_table(header, rows)


def describe_net2net(records):
    """Return the table of the widened network."""
    rows = [[r["name"], r["epochs"], f"{100 * r['test']:.1f}"] for r in records]
    return markdown_table(["wide network", "epochs", "test accuracy in %"], rows)


def report(records):
    """Return the tables of all parts that ran."""
    describe = {"criteria": describe_criteria, "net2net": describe_net2net}
    tables = []
    for part in PARTS:
        found = [record for record in records if record["part"] == part]
        if len(found) > 1:
            tables.append(f"{part}:\n\n{describe.get(part, describe_table)(found)}")
    return "\n\n".join(tables)


def main(argv=None):
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images, labels, *tests = load_cifar10(arguments.cifar10)
    # They are sorted by class.
    rows = np.random.RandomState(0).permutation(len(tests[1]))[: arguments.n_test]
    tests = [part[rows] for part in tests]
    if arguments.n_images < len(labels):
        _, rows = train_test_split(
            np.arange(len(labels)),
            test_size=arguments.n_images,
            stratify=labels,
            random_state=0,
        )
        images, labels = images[rows], labels[rows]
    data = images, labels, tests
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "compression.json"
    records = json.loads(path.read_text()) if path.exists() else []
    machine = describe_machine()
    runs = {
        "vgg": lambda: run_table("vgg", data, arguments),
        "tuned": lambda: run_table("tuned", data, arguments),
        "criteria": lambda: run_criteria(data, arguments),
        "net2net": lambda: run_net2net(data, arguments),
    }
    with watch_others(machine):
        for part in arguments.parts:
            for record in runs[part]():
                records.append(record)
                logger.info("%s", json.dumps(record))
                path.write_text(json.dumps(records))
    text = f"{report(records)}\n\n{machine_line(machine)}"
    (arguments.output / "compression.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
