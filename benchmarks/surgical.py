"""Surgical fine-tuning (Lee et al., ICLR 2023): which stages to adapt after a shift.

A network is tuned on clean CIFAR-10 images. `warm_start` then adapts it with a few
shifted images of the same classes, and only some of its stages may change, in addition
to the head. Three shifts concern the input (noise, blur, inverted colors) and one the
output (the labels are reversed, as in the paper's CIFAR-Flip). A seed determines the
images, the tuned network, and the few images, and all parts are compared on them.
Writes `surgical.json` after each fit and `surgical.md` at the end. See
`benchmarks/README.md`.
"""

import argparse
import copy
import logging
import pathlib
import time

import numpy as np
from _common import HERE, load_cifar10, markdown_table, run_seeds
from scipy.ndimage import gaussian_filter
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skdeepfeat import FineTuneClassifier
from skdeepfeat.inspection import relative_gradient_norms

logger = logging.getLogger("benchmarks.surgical")

DATA = HERE.parents[1] / "shared" / "data" / "cifar10_5k.npz"
PARTS = {
    "new head": None,
    "first stage": (0,),
    "last stage": (-1,),
    "normalization": "normalization",
    "all": "all",
}


def add_noise(images, rng):
    noisy = images + rng.normal(0, 40, images.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def blur(images, rng):
    return gaussian_filter(images, (0, 1.5, 1.5, 0))


def invert(images, rng):
    return 255 - images


def keep(images, rng):
    return images


# Name -> what happens to the images, and whether the labels are reversed.
SHIFTS = {
    "noise": (add_noise, False),
    "blur": (blur, False),
    "inverted colors": (invert, False),
    "reversed labels": (keep, True),
}


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--cifar10", type=pathlib.Path, default=DATA, help=".npz")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    add("--shifts", nargs="+", choices=list(SHIFTS), default=list(SHIFTS))
    add("--parts", nargs="+", choices=list(PARTS), default=list(PARTS)[:3])
    add("--image-size", type=int, default=48, help="pixels (48)")
    add("--n-source", type=int, default=1500, help="clean images (1,500)")
    add("--n-shifted", type=int, default=100, help="shifted images (100)")
    add("--n-test", type=int, default=500, help="shifted test images (500)")
    add("--source-epochs", type=int, default=3)
    add("--epochs", type=int, default=12, help="of the adaptation (12)")
    add("--learning-rate", type=float, default=1e-3, help="of the adaptation (1e-3)")
    add("--device", default="cpu")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    return parser.parse_args(argv)


def draw(y, n, seed):
    """Return the indices of `n` images, as many of each class."""
    _, indices = train_test_split(
        np.arange(len(y)), test_size=n, stratify=y, random_state=seed
    )
    return indices


def tune_source(X, y, seed, arguments):
    """Return a network that was tuned on clean images."""
    return FineTuneClassifier(
        image_size=arguments.image_size,
        max_epochs=arguments.source_epochs,
        cache=None,
        device=arguments.device,
        random_state=seed,
    ).fit(X, y)


def adapt(source, part, X, y, arguments):
    """Return a copy of a network that was trained on with shifted images."""
    if part == "new head":
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
        return make_pipeline(FunctionTransformer(source.transform), head).fit(X, y)
    adapted = copy.deepcopy(source).set_params(
        warm_start=True,
        unfreeze=PARTS[part],
        max_epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        # The first stage learns as fast as the last. Otherwise the rates would differ.
        layer_decay=1.0,
    )
    return adapted.fit(X, y)


def run_seed(images, labels, tests, seed, arguments):
    """Yield one record per shift and part."""
    chosen = draw(labels, arguments.n_source + arguments.n_shifted, seed)
    clean, few = chosen[: arguments.n_source], chosen[arguments.n_source :]
    X_test, y_test = tests
    start = time.perf_counter()
    source = tune_source(images[clean], labels[clean], seed, arguments)
    clean_score = source.score(X_test, y_test)
    logger.info(
        "seed %d: %.3f on clean images, %.0f s",
        seed,
        clean_score,
        time.perf_counter() - start,
    )
    for shift in arguments.shifts:
        change, reverses = SHIFTS[shift]
        rng = np.random.default_rng(seed)
        X, y = change(images[few], rng), labels[few]
        X_shifted, y_shifted = change(X_test, rng), y_test
        if reverses:
            y, y_shifted = 9 - y, 9 - y_shifted
        common = {"seed": seed, "shift": shift, "clean": clean_score}
        norms = relative_gradient_norms(source, X, y)["relative_norm"]
        score = source.score(X_shifted, y_shifted)
        norms = [round(value, 6) for value in norms]
        yield {**common, "part": "not adapted", "score": score, "norms": norms}
        for part in arguments.parts:
            start = time.perf_counter()
            adapted = adapt(source, part, X, y, arguments)
            seconds = time.perf_counter() - start
            score = adapted.score(X_shifted, y_shifted)
            yield {**common, "part": part, "score": score, "seconds": seconds}


def interval(differences):
    """Return the mean of paired differences with its 95 % interval, in points."""
    values = 100 * np.asarray(differences)
    mean, n = values.mean(), len(values)
    if n < 2:
        return f"{mean:+.1f}"
    half = t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def report(records, arguments):
    """Return a table: mean accuracy of each part, and first against last stage."""
    columns = ["not adapted", *arguments.parts]
    rows = []
    for shift in arguments.shifts:
        scores = {part: {} for part in columns}
        for record in records:
            if record["shift"] == shift and record["part"] in scores:
                scores[record["part"]][record["seed"]] = record["score"]
        # Seeds for which all parts are there, should the run have been cut off.
        seeds = sorted(set.intersection(*(set(one) for one in scores.values())))
        if not seeds:
            continue
        means = [np.mean([scores[part][seed] for seed in seeds]) for part in columns]
        row = [shift, *(f"{100 * mean:.1f}" for mean in means)]
        if {"first stage", "last stage"} <= scores.keys():
            first, last = scores["first stage"], scores["last stage"]
            row.append(interval([first[seed] - last[seed] for seed in seeds]))
        rows.append([*row, len(seeds)])
    header = ["accuracy in %", *columns]
    if {"first stage", "last stage"} <= set(columns):
        header.append("first - last stage (95 % interval)")
    return markdown_table([*header, "seeds"], rows)


def main(argv=None):
    arguments = parse_arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    images, labels, *tests = load_cifar10(arguments.cifar10)
    rows = draw(tests[1], arguments.n_test, seed=0)
    tests = [part[rows] for part in tests]
    run_seeds(
        "surgical",
        arguments,
        lambda seed: run_seed(images, labels, tests, seed, arguments),
        lambda records: report(records, arguments),
    )


if __name__ == "__main__":
    main()
