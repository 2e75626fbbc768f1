"""Why pre-training helps: networks with and without it end in different functions.

    python examples/training_trajectories.py

A small network learns the ten digits from 20 images: five times after it was trained on
900 others, and five times from random weights. After each epoch it predicts 200 more
images. The picture, ``training_trajectories.png``, maps these predictions to two
dimensions: each line is a fit, and close points are networks that predict the same. The
two bundles do not overlap, as in Erhan et al. (2010), "Why does unsupervised
pre-training help deep learning?". Here the pre-training has labels. Takes seconds on a
CPU.
"""

import argparse

import matplotlib
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skdeepfeat import FineTuneClassifier

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from skdeepfeat.plotting import TrajectoryDisplay

PARAMETERS = {
    "preprocessing": {"resize": 16, "crop": (16, 16)},
    "head_init": "random",
    "layer_decay": 1.0,
    "augment": None,
    "cache": None,
}


def make_network(seed):
    """Return a network with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 5),
        )


def pretrain(X, y, seed):
    """Return a network that was trained on many digits."""
    classifier = FineTuneClassifier(
        make_network(seed), **PARAMETERS, max_epochs=8, batch_size=64,
        learning_rate=3e-3, head_epochs=1, random_state=seed,
    )  # fmt: skip
    return classifier.fit(X, y).body_


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-seeds", type=int, default=5, help="of each group (5)")
    arguments = parser.parse_args(argv)

    digits = load_digits()
    X_source, X, y_source, y = train_test_split(
        digits.images / 16, digits.target, train_size=900, random_state=0
    )
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, train_size=20, stratify=y, random_state=0
    )
    fits = {"pretrained": [], "random": []}
    for seed in range(arguments.n_seeds):
        starts = {
            "pretrained": pretrain(X_source, y_source, seed),
            "random": make_network(seed),
        }
        for name, network in starts.items():
            classifier = FineTuneClassifier(
                network, **PARAMETERS, max_epochs=10, learning_rate=1e-3,
                head_epochs=4, random_state=seed,
            )  # fmt: skip
            classifier.fit(X_train, y_train, X_probe=X_test[:200])
            fits[name].append(classifier)
    for name, group in fits.items():
        scores = [one.score(X_test, y_test) for one in group]
        print(f"{name:10}  test accuracy {np.mean(scores):.3f}")
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for ax, method in zip(axes, ("tsne", "isomap"), strict=True):
        display = TrajectoryDisplay.from_estimators(
            fits, method=method, random_state=0, ax=ax
        )
        ax.set_xlabel({"tsne": "t-SNE", "isomap": "Isomap"}[method])
    print(f"silhouette of the bundles  {display.separation:.3f}")
    print(f"epochs next to the other group  {display.mixing:.3f}")
    figure.savefig("training_trajectories.png", dpi=100)


if __name__ == "__main__":
    main()
