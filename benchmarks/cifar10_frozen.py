"""Accuracy of scikit-learn classifiers on frozen features of CIFAR-10 images.

5,000 training and 2,000 test images, the embedded network, its neck. Whatever has to be
chosen is chosen by cross-validation within the training images; the test images are
looked at once. Writes `cifar10_frozen_SIZE.json` and `.md` into the output folder. See
`benchmarks/README.md`.
"""

import argparse
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
from joblib import parallel_config
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler
from sklearn.svm import SVC

from skdeepfeat import PretrainedFeatureExtractor

DEFAULT_DATA = HERE.parents[1] / "shared" / "data" / "cifar10_5k.npz"


def signed_square_root(features):
    """Bring features closer to a normal distribution: Perronnin et al., ECCV 2010."""
    return np.sign(features) * np.sqrt(np.abs(features))


# A forest looks at one feature at a time, so for it, too, it matters whether the
# features of an image stand beside each other at their own length or at length one.
UNIT_LENGTH = Normalizer()
SQUARE_ROOT = FunctionTransformer(signed_square_root)

# Name -> estimator, what is chosen within the training images, the accuracy to reach
# at 224 pixels.
CLASSIFIERS = {
    "logistic regression": (
        [("scale", StandardScaler()), ("clf", LogisticRegression(max_iter=2000))],
        {"clf__C": [0.0003, 0.001, 0.003, 0.01]},
        0.76,
    ),
    "RBF SVM": (
        [("scale", UNIT_LENGTH), ("clf", SVC())],
        {"scale": [UNIT_LENGTH, SQUARE_ROOT], "clf__C": [2, 5, 10]},
        0.765,
    ),
    "random forest": (
        [
            ("scale", UNIT_LENGTH),
            ("clf", RandomForestClassifier(n_estimators=500, random_state=0)),
        ],
        {"scale": ["passthrough", UNIT_LENGTH]},
        0.71,
    ),
}
N_FOLDS = 3


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=pathlib.Path, default=DEFAULT_DATA, help="the .npz file")
    add("--image-size", type=int, default=224, help="pixels (224)")
    add("--n-train", type=int, help="only so many training images")
    add("--n-test", type=int, help="only so many test images")
    add("--device", default="auto", help="where the network runs (auto)")
    add("--cache", type=pathlib.Path, help="folder of the cache (default: the user's)")
    add("--output", type=pathlib.Path, default=pathlib.Path("bench_output"))
    return parser.parse_args(argv)


def load_data(path, n_train, n_test):
    """Return training images, labels, test images, labels.

    Raises
    ------
    SystemExit
        If the file is not there, with what it should hold.
    """
    if not path.is_file():
        raise SystemExit(
            "--data must name a .npz file with X_train, y_train, X_test, y_test, "
            "images as uint8 of shape (n, 32, 32, 3). There is no file "
            f"{str(path)!r}."
        )
    with np.load(path, allow_pickle=False) as data:
        train = _spread_rows(n_train, data["X_train"], data["y_train"])
        test = _spread_rows(n_test, data["X_test"], data["y_test"])
    return *train, *test


def _spread_rows(n_rows, *arrays):
    """Return rows from all over the file, as it may be sorted by class."""
    rows = np.linspace(0, len(arrays[0]) - 1, n_rows or len(arrays[0])).astype(int)
    return tuple(array[rows] for array in arrays)


def evaluate(name, features, labels, test_features, test_labels):
    """Choose and fit one classifier on the training rows; score it on the test rows."""
    steps, grid, target = CLASSIFIERS[name]
    start = time.perf_counter()
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    search = GridSearchCV(
        Pipeline(steps), grid, cv=folds, n_jobs=-1, error_score="raise"
    )
    # Threads, because the load of joblib's processes would count as that of others.
    with parallel_config("threading"):
        search.fit(features, labels)
    return {
        "classifier": name,
        "candidates": {key: list(map(_in_words, grid[key])) for key in grid},
        "chosen": {k: _in_words(v) for k, v in search.best_params_.items()},
        "cv_accuracy": float(search.best_score_),
        "test_accuracy": float(search.score(test_features, test_labels)),
        "target_at_224": target,
        "seconds": time.perf_counter() - start,
    }


def _in_words(choice):
    """Return a candidate as the report writes it."""
    words = {Normalizer: "unit length", FunctionTransformer: "square root"}
    return words.get(type(choice), choice)


def report(document):
    rows = [
        [
            result["classifier"],
            ", ".join(f"{k.split('__')[-1]}={v}" for k, v in result["chosen"].items()),
            f"{result['cv_accuracy']:.4f}",
            f"{result['test_accuracy']:.4f}",
            f"{result['target_at_224']}",
            f"{result['seconds']:.0f}",
        ]
        for result in document["results"]
    ]
    header = [
        f"CIFAR-10 at {document['image_size']} px",
        f"chosen in {N_FOLDS} folds",
        "accuracy there",
        "test accuracy",
        "to reach at 224 px",
        "seconds",
    ]
    n_train, n_test = document["n_train"], document["n_test"]
    return "\n\n".join(
        [
            markdown_table(header, rows),
            f"{n_train} training and {n_test} test images, "
            f"{document['n_features']} features; extraction "
            f"{document['extraction_seconds']:.1f} s.",
            machine_line(document["machine"]),
        ]
    )


def run(arguments, document):
    """Extract the features and evaluate every classifier into `document`."""
    X, y, X_test, y_test = load_data(
        arguments.data, arguments.n_train, arguments.n_test
    )
    extractor = PretrainedFeatureExtractor(
        image_size=arguments.image_size,
        device=arguments.device,
        cache=arguments.cache or "default",
        verbose=1,
    )
    start = time.perf_counter()
    features, test_features = extractor.fit_transform(X), extractor.transform(X_test)
    document["extraction_seconds"] = time.perf_counter() - start
    document |= {
        "n_train": len(X),
        "n_test": len(X_test),
        "n_features": features.shape[1],
    }
    document["results"] = [
        evaluate(name, features, y, test_features, y_test) for name in CLASSIFIERS
    ]


def main(argv=None):
    arguments = parse_arguments(argv)
    document = {"machine": describe_machine(), "image_size": arguments.image_size}
    with watch_others(document["machine"]):
        run(arguments, document)
    text = report(document)
    name = f"cifar10_frozen_{arguments.image_size}"
    path = write_results(arguments.output, name, document, text)
    print(f"{text}\n\nAll single results: {path}")


if __name__ == "__main__":
    main()
