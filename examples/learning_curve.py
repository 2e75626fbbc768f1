"""How much to tune depends on how much data there is: from 50 to 5,000 images.

    python examples/learning_curve.py [--sizes 50 150 500 1500 5000]

Accuracy on the same test images of a logistic regression on frozen features and of
FineTuneClassifier, as the number of training images grows; the picture is written to
``learning_curve.png``. Needs CIFAR-10: see ``--data`` and ``--download``. The largest
size takes minutes on a CPU.
"""

import argparse
import pathlib

import matplotlib
from _cifar import add_arguments, load
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def subset(X, y, n):
    """Return n rows with all classes in equal parts."""
    if n >= len(X):
        return X, y
    [(rows, _)] = StratifiedShuffleSplit(1, train_size=n, random_state=0).split(X, y)
    return X[rows], y[rows]


def frozen(image_size):
    """Return the classifier on frozen features."""
    pipe = make_pipeline(
        PretrainedFeatureExtractor(image_size=image_size),
        StandardScaler(),
        LogisticRegression(max_iter=1000),
    )
    grid = {"logisticregression__C": [1e-4, 1e-3, 1e-2, 1e-1]}
    return GridSearchCV(pipe, grid, cv=3)


def draw(sizes, curves, path):
    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, values in curves.items():
        ax.plot(sizes, values, marker="o", label=name)
    ax.set_xscale("log")
    ax.set_xticks(sizes, [f"{n:,}" for n in sizes])
    ax.minorticks_off()
    ax.set(xlabel="training images", ylabel="test accuracy", title="CIFAR-10")
    ax.grid(alpha=0.3)
    ax.legend()
    figure.savefig(path, dpi=150)


def n_epochs(text):
    """Read a number of epochs, or "auto"."""
    return text if text == "auto" else int(text)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[50, 150, 500, 1500, 5000]
    )
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument(
        "--epochs",
        type=n_epochs,
        default="auto",
        help="of fine-tuning (default: as many as the number of images asks for)",
    )
    parser.add_argument("--output", type=pathlib.Path, default="learning_curve.png")
    arguments = parser.parse_args(argv)

    X, y, X_test, y_test = load(arguments)
    curves = {"frozen features": [], "fine-tuned": []}
    for n in arguments.sizes:
        X_part, y_part = subset(X, y, n)
        tuned = FineTuneClassifier(
            image_size=arguments.image_size,
            max_epochs=arguments.epochs,
            random_state=0,
        )
        models = {"frozen features": frozen(arguments.image_size), "fine-tuned": tuned}
        for name, model in models.items():
            curves[name].append(model.fit(X_part, y_part).score(X_test, y_test))
        last = {name: values[-1] for name, values in curves.items()}
        words = ", ".join(f"{name} {value:.3f}" for name, value in last.items())
        print(f"{n:>5} images: {words}", flush=True)
    draw(arguments.sizes, curves, arguments.output)
    print(f"written: {arguments.output}")


if __name__ == "__main__":
    main()
