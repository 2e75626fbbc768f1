"""Why pre-training helps: networks with and without it end in different functions.

    python examples/training_trajectories.py

A small network learns the digits 0 to 4 from 60 images, five times after it was trained
on the digits 5 to 9, and five times from random weights. After each epoch it predicts
200 other images. The picture, ``training_trajectories.png``, maps these predictions to
two dimensions: each line is a fit, and close points are networks that predict the same.
The two bundles do not overlap, as in Erhan et al. (2010), "Why does unsupervised
pre-training help deep learning?". Takes seconds on a CPU.
"""

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

N_SEEDS = 5
PARAMETERS = {
    "preprocessing": {"resize": 16, "crop": (16, 16)},
    "head_init": "random",
    "learning_rate": 3e-3,
    "layer_decay": 1.0,
    "augment": None,
    # The trajectory of the weights themselves, not of their average.
    "ema_decay": 0.0,
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
    """Return a network that was trained on other digits."""
    classifier = FineTuneClassifier(
        make_network(seed), **PARAMETERS, max_epochs=15, head_epochs=2,
        random_state=seed,
    )  # fmt: skip
    return classifier.fit(X, y).body_


def main():
    digits = load_digits()
    X, y = digits.images / 16, digits.target
    is_new = y < 5
    X_train, X_test, y_train, y_test = train_test_split(
        X[is_new], y[is_new], train_size=60, stratify=y[is_new], random_state=0
    )
    X_probe = X_test[:200]
    fits = {"pretrained": [], "random": []}
    for seed in range(N_SEEDS):
        starts = {
            "pretrained": pretrain(X[~is_new], y[~is_new], seed),
            "random": make_network(seed),
        }
        for name, network in starts.items():
            classifier = FineTuneClassifier(
                network, **PARAMETERS, max_epochs=15, head_epochs=5, random_state=seed
            )
            fits[name].append(classifier.fit(X_train, y_train, X_probe=X_probe))
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
    print(f"epochs next to an epoch of the other bundle  {display.mixing:.3f}")
    figure.savefig("training_trajectories.png", dpi=100)


if __name__ == "__main__":
    main()
