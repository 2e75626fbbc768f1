"""TransferAdvisor against an exhaustive search over the same candidates.

For each data set, `TransferAdvisor` decides within each budget, from an empty cache,
and its result is scored on images that it has not seen. The exhaustive search fits each
candidate once to all training images and scores it on the same test images: every
network, layer and head, and fine-tuning of the networks in --tune. So it knows the test
images, which no search could. A search by five-fold cross-validation would take four
times as long as these fits (five fits, of 4/5 of the images).

Writes `transfer_advisor.json` after each measurement, and continues from it. See
`benchmarks/README.md`.
"""

import argparse
import json
import logging
import pathlib
import tempfile
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
from _few_images import load_aircraft
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from skdeepfeat import (
    FineTuneClassifier,
    PretrainedFeatureExtractor,
    TransferAdvisor,
    list_layers,
)

logger = logging.getLogger("benchmarks.transfer_advisor")

DATA = HERE.parents[1] / "shared" / "data"
DEFAULT_NETWORK = "efficientnet_lite0"
EMBEDDED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
FROM_FILES = {"squeezenet1_1": "squeezenet1_1.pth", "mobilenet_v2": "mobilenet_v2.pth"}
RANDOM = "efficientnet_lite0, random"
HEADS = {
    "logistic": lambda n: make_pipeline(
        StandardScaler(), LogisticRegression(C=10 / n, max_iter=1000)
    ),
    "RBF SVM": lambda n: make_pipeline(StandardScaler(), SVC(C=10)),
    "random forest": lambda n: make_pipeline(RandomForestClassifier(random_state=0)),
}
DEFAULTS = ("default|neck + logistic regression", f"tuned|{DEFAULT_NETWORK}|all")
# Fits of a cross-validated search for each of ours: five, to 4/5 of the images.
SEARCH_FACTOR = 4


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--datasets", nargs="+", choices=list(DATASETS), default=list(DATASETS))
    add("--budgets", type=float, nargs="+", default=[120, 600], help="seconds")
    add("--parts", nargs="+", choices=["search", "advisor"],
        default=["search", "advisor"])  # fmt: skip
    add("--tune", nargs="*", default=[DEFAULT_NETWORK], help="networks to fine-tune")
    add("--cifar10", type=pathlib.Path, default=DATA / "cifar10_5k.npz", help=".npz")
    add("--aircraft", type=pathlib.Path, default=DATA / "aircraft", help="a folder")
    add("--weights", type=pathlib.Path, default=DATA / "weights", help="a folder")
    add("--quick", action="store_true", help="digits, two networks, 20 seconds")
    add("--processor-time", action="store_true",
        help="budgets in processor time: for a machine that does other things too; "
        "needs one thread (OMP_NUM_THREADS=1)")  # fmt: skip
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    arguments = parser.parse_args(argv)
    arguments.networks = [*EMBEDDED, *FROM_FILES, RANDOM]
    if arguments.quick:
        arguments.datasets, arguments.budgets = ["digits"], [20]
        arguments.networks, arguments.tune = [DEFAULT_NETWORK, RANDOM], []
    return arguments


# -- Data sets: (X, y, X_test, y_test, image size)


def load_cifar10(arguments, n_per_class):
    with np.load(arguments.cifar10, allow_pickle=False) as data:
        X, y, X_test, y_test = (
            data[name] for name in ("X_train", "y_train", "X_test", "y_test")
        )
    rng = np.random.default_rng(0)  # the rows are sorted by class
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(y == k))[:n_per_class] for k in np.unique(y)]
    )
    rows = rng.permutation(rows)
    return X[rows], y[rows], X_test, y_test, 64


def load_planes(arguments):
    paths, labels = load_aircraft(arguments.aircraft)
    X, X_test, y, y_test = train_test_split(
        paths, labels, train_size=400, random_state=0, stratify=labels
    )
    return X, y, X_test, y_test, 96


def load_figures(arguments):
    digits = load_digits()
    X, X_test, y, y_test = train_test_split(
        digits.images / 16,
        digits.target,
        train_size=500,
        random_state=0,
        stratify=digits.target,
    )
    return X, y, X_test, y_test, 32


DATASETS = {
    "cifar10-200": lambda arguments: load_cifar10(arguments, 20),
    "aircraft": load_planes,
    "digits": load_figures,
    "cifar10-5000": lambda arguments: load_cifar10(arguments, 500),
}


def make_extractor(arguments, name, image_size, cache):
    params = {"image_size": image_size, "cache": cache}
    if name in FROM_FILES:
        params["weights"] = str(arguments.weights / FROM_FILES[name])
    if name == RANDOM:
        name, params["weights"] = DEFAULT_NETWORK, "random"
    return PretrainedFeatureExtractor(name, **params)


# -- What is measured


class Notes:
    """Results by key, in a file that is written after each."""

    def __init__(self, arguments):
        self.path = arguments.output / "transfer_advisor.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.results = {}
        if self.path.is_file():
            self.results = json.loads(self.path.read_text(encoding="utf-8"))["results"]

    def measure(self, key, function):
        """Keep what ``function()`` returns, with its seconds, unless it is known."""
        if key in self.results:
            return
        start, start_cpu = time.perf_counter(), time.process_time()
        result = function()
        result |= {
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - start_cpu,
            "n_threads": torch.get_num_threads(),
        }
        logger.info("%s: %s", key, result)
        self.results[key] = result
        text = json.dumps({"results": self.results}, indent=1)
        self.path.write_text(text + "\n", encoding="utf-8")


def search(arguments, name, notes):
    """Fit and score every candidate."""
    X, y, X_test, y_test, size = DATASETS[name](arguments)
    with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as cache:
        for network in arguments.networks:
            extractor = make_extractor(arguments, network, size, cache)
            extractor.set_params(cache_layers="stages")
            layers = [*stages(extractor), None]
            known = [
                f"{name}|frozen|{network}|{layer or 'neck'}|{head}" in notes.results
                for layer in layers
                for head in HEADS
            ]
            if all(known):
                continue
            extract = extractor.fit_transform
            notes.measure(
                f"{name}|extract|{network}", lambda run=extract: {"n": len(run(X))}
            )
            for layer in layers:
                extractor.set_params(layer=layer)
                features, tested = extract(X), extract(X_test)
                for head, make in HEADS.items():
                    model = make(features.shape[1])

                    def fit(model=model, features=features, tested=tested):
                        model.fit(features, y)
                        return {"accuracy": float(model.score(tested, y_test))}

                    notes.measure(
                        f"{name}|frozen|{network}|{layer or 'neck'}|{head}", fit
                    )
        extractor = make_extractor(arguments, DEFAULT_NETWORK, size, cache)
        pipe = make_pipeline(extractor, LogisticRegression(max_iter=1000))

        def fit_default():
            return {"accuracy": float(pipe.fit(X, y).score(X_test, y_test))}

        notes.measure(f"{name}|default|neck + logistic regression", fit_default)
        for network in arguments.tune:
            for unfreeze in ("all", 1):
                params = make_extractor(arguments, network, size, cache).get_params()

                def tune(params=params, unfreeze=unfreeze):
                    kept = ("model", "weights", "image_size", "cache")
                    model = FineTuneClassifier(
                        **{one: params[one] for one in kept},
                        unfreeze=unfreeze,
                        random_state=0,
                    )
                    return {"accuracy": float(model.fit(X, y).score(X_test, y_test))}

                notes.measure(f"{name}|tuned|{network}|{unfreeze}", tune)


def stages(extractor):
    """Return the names of the stages of an extractor's network."""
    table = list_layers(
        extractor.model, weights=extractor.weights, image_size=extractor.image_size
    )
    return table.loc[table["stage"].notna(), "name"].tolist()


def advise(arguments, name, budget, notes):
    """Let the advisor decide, from an empty cache."""
    X, y, X_test, y_test, size = DATASETS[name](arguments)

    def decide():
        with tempfile.TemporaryDirectory(prefix="skdeepfeat-bench-") as cache:
            models = [
                make_extractor(arguments, network, size, cache)
                for network in arguments.networks
            ]
            advisor = TransferAdvisor(models, time_budget=budget, random_state=0)
            advisor.fit(X, y)
            chosen = advisor.results_.query("recommended").iloc[0]
            return {
                "accuracy": float(advisor.score(X_test, y_test)),
                "candidate": chosen["candidate"],
                "score": float(chosen["score"]),
                "standard_error": float(chosen["standard_error"]),
                "decision_seconds": advisor.decision_seconds_,
                "refit_seconds": advisor.refit_seconds_,
                "recommendation": advisor.recommendation_,
                "table": json.loads(advisor.results_.to_json(orient="records")),
            }

    notes.measure(f"{name}|advisor|{budget:g}", decide)


# -- The report


def report(results, machine):
    """Return a table with a row for each decision."""
    rows = []
    for name in dict.fromkeys(key.split("|")[0] for key in results):
        rows += rows_of(name, parts_of(name, results))
    header = [
        "data set, budget",
        "recommended",
        "test accuracy",
        "best of all",
        "standard error",
        "seconds",
        "of a search",
        "better default",
    ]
    return f"{markdown_table(header, rows)}\n\n{machine_line(machine)}"


def parts_of(name, results):
    """Return what was measured on a data set, by the rest of the keys."""
    return {
        key.split("|", 1)[1]: one
        for key, one in results.items()
        if key.split("|")[0] == name
    }


def rows_of(name, parts):
    """Return the rows of a data set."""
    searched = {
        key: one
        for key, one in parts.items()
        if key.startswith(("frozen|", "tuned|", "default|"))
    }
    best = max(searched, key=lambda key: searched[key]["accuracy"], default=None)
    seconds = SEARCH_FACTOR * sum(_alone(key, one) for key, one in searched.items())
    defaults = [parts[key]["accuracy"] for key in DEFAULTS if key in parts]
    rows = []
    for key, one in parts.items():
        if not key.startswith("advisor|"):
            continue
        known = "-", "-", "-"
        if best is not None:
            accuracy = searched[best]["accuracy"]
            known = (
                f"{accuracy:.3f} ({best.partition('|')[2].replace('|', ', ')})",
                f"{one['decision_seconds'] / seconds:.2f}",
                f"{max(defaults):.3f}" if defaults else "-",
            )
        rows.append(
            [
                f"{name}, {key.partition('|')[2]} s",
                one["candidate"],
                f"{one['accuracy']:.3f}",
                known[0],
                f"{one['standard_error']:.3f}",
                f"{one['decision_seconds']:.0f}",
                known[1],
                known[2],
            ]
        )
    return rows


def _alone(key, one):
    """Return the seconds of a fit on a machine that does nothing else."""
    # Heads use one thread.
    n_threads = one["n_threads"] if key.startswith("tuned|") else 1
    return min(one["seconds"], one["cpu_seconds"] / n_threads)


def main(argv=None):
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.processor_time:
        # All that the advisor measures is measured with this clock.
        time.perf_counter = time.process_time
    machine, notes = describe_machine(), Notes(arguments)
    with watch_others(machine):
        for name in arguments.datasets:
            if "search" in arguments.parts:
                search(arguments, name, notes)
            if "advisor" in arguments.parts:
                for budget in arguments.budgets:
                    advise(arguments, name, budget, notes)
    document = {"machine": machine, "results": notes.results}
    text = report(notes.results, machine)
    write_results(arguments.output, "transfer_advisor", document, text)
    print(text)


if __name__ == "__main__":
    main()
