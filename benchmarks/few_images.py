"""From 2 to 250 images per class: our two phases against logistic regression.

Each draw takes a few images of each class of a data set and scores on others. Compared
on the same draws and features are scikit-learn's LogisticRegression with its defaults,
on raw and on standardized features, and ``FineTuneClassifier(unfreeze=None)``; and
with the latter, FineTuneClassifier with its defaults. Writes `few_images_SIZE.json`
after each fit and `few_images_SIZE.md` at the end. See `benchmarks/README.md`.
"""

import argparse
import json
import logging
import pathlib
import time

import numpy as np
from _common import (
    HERE,
    describe_machine,
    machine_line,
    markdown_table,
    watch_others,
    write_results,
)
from _few_images import (
    draw,
    load_aircraft,
    load_animals,
    load_cifar10,
    load_cifar10_pair,
    load_solar,
)
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor

logger = logging.getLogger("benchmarks.few_images")

DATA = HERE.parents[1] / "shared" / "data"
DATASETS = {
    "cifar10": lambda arguments: load_cifar10(arguments.cifar10),
    "cifar10-pair": lambda arguments: load_cifar10_pair(arguments.cifar10),
    "aircraft": lambda arguments: load_aircraft(arguments.aircraft),
    "solar": lambda arguments: load_solar(),
    "animals": lambda arguments: load_animals(),
}
SIZES = [2, 4, 8, 16, 32, 250]
# Phase two takes minutes where a head takes a second: fewer draws of more than this
# many images per class, and more than 32 only on CIFAR-10.
TUNED_ALL_DRAWS, TUNED_DRAWS, TUNED_LARGEST = 8, 3, 32
# To reach, in points of accuracy: the mean difference, or the end of its interval.
FROZEN_MARGIN, TUNED_MARGIN = -0.5, -1.0


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = list(DATASETS)
    standard = [name for name in names if name != "cifar10-pair"]
    add("--datasets", nargs="+", choices=names, default=standard)
    add("--cifar10", type=pathlib.Path, default=DATA / "cifar10_5k.npz", help=".npz")
    add("--aircraft", type=pathlib.Path, default=DATA / "aircraft", help="a folder")
    add("--sizes", type=int, nargs="+", default=SIZES, help="images per class")
    add("--n-draws", type=int, default=10)
    add("--first-draw", type=int, default=0, help="the first draw's seed (0)")
    add("--image-size", type=int, default=64, help="pixels (64)")
    add("--tuned", action="store_true", help="with phase two, which takes hours")
    add("--quick", action="store_true", help="2 draws of 2 and 8 images per class")
    add("--go-on", action="store_true", help="keep the results of an earlier run")
    add("--device", default="cpu")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    arguments = parser.parse_args(argv)
    if arguments.quick:
        arguments.sizes, arguments.n_draws = [2, 8], 2
    return arguments


def run(arguments, document, keep):
    """Score every way on every draw into `document`; call `keep` after each."""
    for name in arguments.datasets:
        X, y = DATASETS[name](arguments)
        settings = {
            "image_size": arguments.image_size,
            "device": arguments.device,
            "cache": {},
        }
        features = PretrainedFeatureExtractor(**settings).fit_transform(X)
        for n in arguments.sizes:
            for seed in range(arguments.n_draws):
                seed += arguments.first_draw
                train, test = draw(y, n, seed)
                for way in _ways(arguments, name, n, seed):
                    key = f"{name} {n} {seed} {way}"
                    if key in document["results"]:
                        continue
                    start = time.perf_counter()
                    accuracy = _score(way, X, features, y, train, test, seed, settings)
                    seconds = time.perf_counter() - start
                    document["results"][key] = {
                        "accuracy": accuracy, "seconds": seconds,
                        "n_train": len(train), "n_test": len(test),
                    }  # fmt: skip
                    logger.info("%s: %.3f in %.1f s", key, accuracy, seconds)
                    keep(document)


def _ways(arguments, name, n, seed):
    ways = ["raw", "standardized", "frozen"]
    n_draws = 10 if n <= TUNED_ALL_DRAWS else TUNED_DRAWS
    if seed - arguments.first_draw >= n_draws:
        return ways
    if not arguments.tuned or (n > TUNED_LARGEST and name != "cifar10"):
        return ways
    return [*ways, "tuned"]


def _score(way, X, features, y, train, test, seed, settings):
    """Return the accuracy of one way on one draw."""
    if way in ("raw", "standardized"):
        model = LogisticRegression()
        if way == "standardized":
            model = make_pipeline(StandardScaler(), model)
        model.fit(features[train], y[train])
        return float(model.score(features[test], y[test]))
    if way == "frozen":
        settings = {**settings, "unfreeze": None}
    model = FineTuneClassifier(random_state=seed, **settings)
    return float(model.fit(X[train], y[train]).score(X[test], y[test]))


def compare(results, name, n, way, others):
    """Return how much better a way is than the best of others, in points.

    Parameters
    ----------
    results : dict
    name, n : str, int
    way, others : str, sequence of str
        The best of the others is that with the highest mean over the draws that `way`
        has been tried on.

    Returns
    -------
    accuracies : dict of str to float
        Means in percent.
    difference, half : float
        The mean difference, and half the width of its 95 % interval (Student's t).
    """
    seeds = [
        key.split()[2]
        for key in results
        if key.startswith(f"{name} {n} ") and key.endswith(f" {way}")
    ]
    scores = {
        one: np.array(
            [100 * results[f"{name} {n} {s} {one}"]["accuracy"] for s in seeds]
        )
        for one in (way, *others)
    }
    best = max(others, key=lambda one: scores[one].mean())
    differences = scores[way] - scores[best]
    half = np.nan
    if len(seeds) > 1:
        error = differences.std(ddof=1) / np.sqrt(len(seeds))
        half = t.ppf(0.975, len(seeds) - 1) * error
    means = {one: float(values.mean()) for one, values in scores.items()}
    return means, float(differences.mean()), float(half), len(seeds)


def report(document):
    """Return the tables as Markdown."""
    keys = [key.split() for key in document["results"]]
    cells = list(dict.fromkeys((name, int(n)) for name, n, _, _ in keys))
    parts = [
        _table(document, cells, "frozen", ["raw", "standardized"], FROZEN_MARGIN),
    ]
    tuned = [
        c
        for c in cells
        if any(k[:2] == [c[0], str(c[1])] and k[3] == "tuned" for k in keys)
    ]
    if tuned:
        parts.append(_table(document, tuned, "tuned", ["frozen"], TUNED_MARGIN))
    return "\n\n".join([*parts, machine_line(document["machine"])])


def _table(document, cells, way, others, margin):
    rows = []
    for name, n in cells:
        means, mean, half, n_draws = compare(document["results"], name, n, way, others)
        rows.append(
            [
                f"{name}, {n} images per class",
                *(f"{means[one]:.1f}" for one in (*others, way)),
                f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})",
                n_draws,
                "yes" if mean > margin or mean + half >= margin else "no",
            ]
        )
    header = [
        f"accuracy in %, {document['image_size']} px",
        *others,
        way,
        "difference to the best (95 % interval)",
        "draws",
        f"{margin} reached",
    ]
    return markdown_table(header, rows)


def main(argv=None):
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stem = f"few_images_{arguments.image_size}"
    path = arguments.output / f"{stem}.json"
    document = {
        "machine": describe_machine(),
        "image_size": arguments.image_size,
        "results": {},
    }
    if arguments.go_on and path.is_file():
        document["results"] = json.loads(path.read_text())["results"]
    arguments.output.mkdir(parents=True, exist_ok=True)

    def keep(document):
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    with watch_others(document["machine"]):
        run(arguments, document, keep)
    text = report(document)
    write_results(arguments.output, stem, document, text)
    print(f"{text}\n\nAll single results: {path}")


if __name__ == "__main__":
    main()
