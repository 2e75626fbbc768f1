"""What features that were learned without labels are worth to a linear model.

Three parts, each a table:

codes
    Digits and CIFAR-10: the frozen neck, PCA and a denoising autoencoder of it (32
    numbers), an autoencoder on pixels (32 numbers), and the pixels themselves, each
    with a logistic regression on a few labels. What needs no labels is fitted to all
    training images.
adapt
    `SelfSupervisedExtractor` goes on with a pretrained network on unlabeled images of a
    domain: CIFAR-10 inverted, with exchanged colors, upside down, and as it is. A
    linear model on a few labels is compared with the same on the frozen network.
scratch
    A small network is trained from random weights, for a few and for more epochs, and
    compared with the pixels and with the random weights.

Writes `without_labels.json` after each measurement, and continues from it. Several
processes with different --seeds or --parts may write to different folders; --also reads
their results into the report. See `benchmarks/README.md`.
"""

import argparse
import json
import logging
import pathlib
import time

import numpy as np
import torch
from _common import (
    HERE,
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skdeepfeat import (
    Autoencoder,
    PretrainedFeatureExtractor,
    SelfSupervisedExtractor,
)
from skdeepfeat._utils._linear_model import linear_model

logger = logging.getLogger("benchmarks.without_labels")

DATA = HERE.parents[1] / "shared" / "data" / "cifar10_5k.npz"
PARTS = ("codes", "adapt", "scratch")
N_COMPONENTS = 32
N_LABELS = (50, 500, 5000)
N_ADAPT_LABELS = 100

# Each takes images (n_images, height, width, 3).
DOMAINS = {
    "inverted": lambda images: 255 - images,
    "recolored": lambda images: images[..., [1, 2, 0]],
    "upside down": lambda images: images[:, ::-1],
    "plain": lambda images: images,
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cifar10", type=pathlib.Path, default=DATA, help=".npz")
    add("--parts", nargs="+", choices=PARTS, default=PARTS)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add("--domains", nargs="+", choices=list(DOMAINS), default=list(DOMAINS))
    add("--image-size", type=int, default=64, help="of the pretrained network (64)")
    add("--adapt-epochs", type=int, default=1, help="of part adapt (1)")
    add("--scratch-epochs", type=int, nargs="+", default=[10, 40, 100])
    add("--method", default="vicreg", help="of part scratch (vicreg)")
    add("--quick", action="store_true", help="few images, one seed, one epoch")
    add("--device", default="cpu")
    add("--also", type=pathlib.Path, nargs="*", default=[], help="other .json files")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.seeds, arguments.image_size = arguments.seeds[:1], 32
        arguments.adapt_epochs, arguments.scratch_epochs = 1, [1]
    return arguments


def load_cifar10(arguments):
    """Return training images, labels, test images, labels."""
    if not arguments.cifar10.is_file():
        raise SystemExit(f"--cifar10 must name a .npz file. Got {arguments.cifar10}.")
    with np.load(arguments.cifar10, allow_pickle=False) as data:
        arrays = [data[name] for name in ("X_train", "y_train", "X_test", "y_test")]
    return _shortened(arrays, arguments)


def load_digit_images(arguments):
    """Return digits as `load_cifar10` does; a quarter are test images."""
    digits = load_digits()
    images = np.uint8(digits.images * 255 / 16)[..., None].repeat(3, axis=3)
    X, X_test, y, y_test = train_test_split(
        images, digits.target, test_size=0.25, random_state=0, stratify=digits.target
    )
    return _shortened([X, y, X_test, y_test], arguments)


def _shortened(arrays, arguments):
    if not arguments.quick:
        return arrays
    # The rows may be sorted by class.
    return [array[np.linspace(0, len(array) - 1, 200, dtype=int)] for array in arrays]


def draw(labels, n, seed):
    """Return the indices of `n` samples, as many of each class; all if there are less.

    What is at an even index is left alone: labels there have fixed the settings.
    """
    indices = np.arange(1, len(labels), 2) if n < len(labels) / 2 else None
    if indices is None:
        return np.arange(len(labels))
    chosen, _ = train_test_split(
        indices, train_size=n, stratify=labels[indices], random_state=seed
    )
    return chosen


def score(features, labels, test_features, test_labels):
    """Return the accuracy of the default model of `linear_probe`."""
    model = linear_model(True, features.shape[1]).fit(features, labels)
    return float(model.score(test_features, test_labels))


class Records(dict):
    """Results by name, kept in a file."""

    def __init__(self, path, others):
        self.path = path
        for one in [*others, path]:
            if one.is_file():
                self.update(json.loads(one.read_text(encoding="utf-8"))["results"])

    def add(self, name, **values):
        """Add one result."""
        self[name] = values
        logger.info("%s: %s", name, json.dumps(values))
        self.path.write_text(json.dumps({"results": self}), encoding="utf-8")


# -- Codes of 32 numbers


def code_features(X, X_test, way, arguments):
    """Return the features of one way for training and test images."""
    if way in ("raw pixels", "autoencoder on pixels"):
        rows, test_rows = (part.reshape(len(part), -1) / 255 for part in (X, X_test))
    else:
        extractor = PretrainedFeatureExtractor(
            image_size=arguments.image_size,
            device=arguments.device,
            cache=arguments.output / "cache",
        ).fit(X)
        rows, test_rows = extractor.transform(X), extractor.transform(X_test)
    epochs = {"max_epochs": 1} if arguments.quick else {}
    settings = {"random_state": 0, "device": arguments.device, **epochs}
    sizes = (256, N_COMPONENTS)
    transformer = {
        "autoencoder on pixels": Autoencoder(sizes, **settings),
        "neck, denoising autoencoder": make_pipeline(
            StandardScaler(), Autoencoder(sizes, corruption="mask", **settings)
        ),
        "neck, PCA": make_pipeline(StandardScaler(), PCA(N_COMPONENTS, random_state=0)),
    }.get(way)
    if transformer is None:
        return rows, test_rows
    return transformer.fit_transform(rows), transformer.transform(test_rows)


CODES = (
    "frozen neck", "neck, PCA", "neck, denoising autoencoder", "autoencoder on pixels",
    "raw pixels",
)  # fmt: skip


def measure_codes(arguments, records):
    for name, load in (("digits", load_digit_images), ("CIFAR-10", load_cifar10)):
        X, y, X_test, y_test = load(arguments)
        for way in CODES:
            wanted = {
                f"codes|{name}|{way}|{min(n, len(y))}|{seed}": (n, seed)
                for n in N_LABELS
                # All labels can be drawn in one way only.
                for seed in (arguments.seeds if n < len(y) / 2 else [0])
            }
            missing = [key for key in wanted if key not in records]
            if not missing:
                continue
            start = time.perf_counter()
            features, test_features = code_features(X, X_test, way, arguments)
            seconds = time.perf_counter() - start
            for key in missing:
                rows = draw(y, *wanted[key])
                accuracy = score(features[rows], y[rows], test_features, y_test)
                records.add(
                    key, accuracy=accuracy, n_features=features.shape[1],
                    seconds=round(seconds, 1),
                )  # fmt: skip


def report_codes(records):
    tables = []
    for name in ("digits", "CIFAR-10"):
        found = _split(records, "codes", name)
        counts = sorted({int(key[1]) for key in found})
        rows = []
        for way in CODES:
            mine = {key: one for key, one in found.items() if key[0] == way}
            if not mine:
                continue
            cells = [way, next(iter(mine.values()))["n_features"]]
            for n in counts:
                scores = [one["accuracy"] for k, one in mine.items() if int(k[1]) == n]
                cells.append(_mean(scores))
            rows.append(cells)
        if rows:
            header = [f"{name}: accuracy in %", "numbers"]
            labels = [f"{n:,} labels" for n in counts]
            tables.append(markdown_table([*header, *labels], rows))
    return "\n\n".join(tables)


# -- Adaptation to a domain


def measure_adapt(arguments, records):
    X, y, X_test, y_test = load_cifar10(arguments)
    # Those whose labels have fixed the settings are not scored on.
    _, rows = train_test_split(
        np.arange(len(y_test)), train_size=0.35, stratify=y_test, random_state=0
    )
    X_test, y_test = X_test[rows], y_test[rows]
    settings = {
        "image_size": arguments.image_size,
        "device": arguments.device,
        "cache": None,
    }
    for seed in arguments.seeds:
        labeled = draw(y, N_ADAPT_LABELS if not arguments.quick else 50, seed)
        for domain in arguments.domains:
            key = f"adapt|{domain}|{seed}"
            if key in records:
                continue
            images, test_images = DOMAINS[domain](X), DOMAINS[domain](X_test)
            few = images[labeled]

            def accuracy(extractor, few=few, labeled=labeled, test_images=test_images):
                features = extractor.transform(few), extractor.transform(test_images)
                return score(features[0], y[labeled], features[1], y_test)

            frozen = PretrainedFeatureExtractor(**settings).fit(few)
            start = time.perf_counter()
            adapted = SelfSupervisedExtractor(
                max_epochs=arguments.adapt_epochs, random_state=seed, **settings
            ).fit(images, X_probe=few, y_probe=y[labeled])
            seconds = time.perf_counter() - start
            records.add(
                key,
                frozen=accuracy(frozen),
                adapted=accuracy(adapted),
                kept_original=adapted.kept_original_,
                probe=[adapted.probe_score_before_, adapted.probe_score_after_],
                epochs=arguments.adapt_epochs,
                seconds=round(seconds, 1),
            )


def report_adapt(records):
    rows = []
    for domain in DOMAINS:
        found = list(_split(records, "adapt", domain).values())
        if not found:
            continue
        frozen, adapted = (
            np.array([one[name] for one in found]) for name in ("frozen", "adapted")
        )
        differences = 100 * (adapted - frozen)
        extremes = f"{differences.min():+.1f} to {differences.max():+.1f}"
        kept = sum(one["kept_original"] for one in found)
        minutes = np.mean([one["seconds"] for one in found]) / 60
        rows.append(
            [
                domain,
                _mean(frozen),
                _mean(adapted),
                f"{differences.mean():+.1f}",
                extremes,
                f"{kept} of {len(found)}",
                f"{minutes:.1f}",
            ]
        )
    header = [
        "CIFAR-10, accuracy in %", "frozen", "adapted", "difference", "of single seeds",
        "original kept", "minutes",
    ]  # fmt: skip
    return markdown_table(header, rows) if rows else ""


# -- From scratch


class SmallNetwork(nn.Module):
    """Three convolutions and a head: 94,000 weights."""

    def __init__(self, widths=(32, 64, 128)):
        super().__init__()
        stages, n_inputs = [], 3
        for width in widths:
            stages.append(
                nn.Sequential(
                    nn.Conv2d(n_inputs, width, 3, 2, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(),
                )
            )
            n_inputs = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(n_inputs, 10)

    def forward(self, images):
        """Return logits, which nothing uses."""
        return self.head(self.pool(self.stages(images)).flatten(1))


def measure_scratch(arguments, records):
    X, y, X_test, y_test = load_cifar10(arguments)
    pixels = [part.reshape(len(part), -1) / 255 for part in (X, X_test)]
    if "scratch|raw pixels|0" not in records:
        accuracy = score(pixels[0], y, pixels[1], y_test)
        records.add("scratch|raw pixels|0", accuracy=accuracy)
    preprocessing = {"resize": 32, "crop": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    settings = {
        "preprocessing": preprocessing,
        "device": arguments.device,
        "cache": None,
    }
    for n_epochs in [0, *arguments.scratch_epochs]:
        for seed in arguments.seeds:
            key = f"scratch|{n_epochs}|{seed}"
            if key in records:
                continue
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                network = SmallNetwork().eval()
            start = time.perf_counter()
            if n_epochs == 0:
                extractor = PretrainedFeatureExtractor(network, **settings).fit(X)
            else:
                extractor = SelfSupervisedExtractor(
                    network,
                    method=arguments.method,
                    unfreeze="all",
                    freeze_batch_norm=False,
                    layer_decay=1.0,
                    learning_rate=4e-3,
                    batch_size=128,
                    max_epochs=n_epochs,
                    random_state=seed,
                    **settings,
                ).fit(X)
            seconds = time.perf_counter() - start
            features = extractor.transform(X), extractor.transform(X_test)
            accuracy = score(features[0], y, features[1], y_test)
            records.add(key, accuracy=accuracy, seconds=round(seconds, 1))


def report_scratch(records):
    found = {key.split("|")[1] for key in records if key.startswith("scratch|")}
    names = ["raw pixels"] if "raw pixels" in found else []
    names += sorted(found - {"raw pixels"}, key=int)
    rows = []
    for name in names:
        results = list(_split(records, "scratch", name).values())
        label = {"raw pixels": name, "0": "random weights", "1": "1 epoch"}.get(
            name, f"{name} epochs"
        )
        minutes = np.mean([one.get("seconds", 0) for one in results]) / 60
        rows.append(
            [
                label,
                _mean([one["accuracy"] for one in results]),
                len(results),
                f"{minutes:.1f}" if name not in ("raw pixels", "0") else "-",
            ]
        )
    header = ["CIFAR-10 at 32 px", "accuracy in %", "seeds", "minutes"]
    return markdown_table(header, rows) if rows else ""


# -- Reports


def _split(records, *beginning):
    """Return the records whose names begin so, by the rest of their names."""
    n = len(beginning)
    split = {tuple(key.split("|")): one for key, one in records.items()}
    return {key[n:]: one for key, one in split.items() if key[:n] == beginning}


def _mean(scores):
    return f"{100 * np.mean(scores):.1f}"


def report(records, machine):
    tables = [report_codes(records), report_adapt(records), report_scratch(records)]
    return "\n\n".join([*filter(None, tables), machine_line(machine)])


MEASURES = {"codes": measure_codes, "adapt": measure_adapt, "scratch": measure_scratch}


def main(argv=None):
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    arguments.output.mkdir(parents=True, exist_ok=True)
    path = arguments.output / "without_labels.json"
    records, machine = Records(path, arguments.also), describe_machine()
    with watch_others(machine):
        for part in arguments.parts:
            MEASURES[part](arguments, records)
    text = report(records, machine)
    document = {"machine": machine, "results": records}
    write_results(arguments.output, "without_labels", document, text)
    print(f"{text}\n\nAll single results: {path}")


if __name__ == "__main__":
    main()
