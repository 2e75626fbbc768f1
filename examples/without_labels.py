"""A network that learns from digits without labels, and what a few labels then give.

    python examples/without_labels.py [--epochs 15] [--output without_labels.png]

A small network with random weights learns that two views of a digit show the same
thing: `SelfSupervisedExtractor`. Digits may be shifted, turned and sheared a little,
but not mirrored, so the views are a transform of our own. Then a linear model is fitted
to 50 labels: on the pixels, on the network before the training, and on the network
after it. The picture shows the features of both networks on the circle, by class.
"""

import argparse
import pathlib

import matplotlib
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torchvision.transforms import v2

from skdeepfeat import PretrainedFeatureExtractor, SelfSupervisedExtractor

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from skdeepfeat.plotting import HypersphereDisplay

SIZE = 16  # pixels


class PerImage:
    """A transform that draws anew for each image of a batch."""

    def __init__(self, transform):
        self.transform = transform

    def __call__(self, images):
        """Return a changed batch."""
        return torch.stack([self.transform(image) for image in images])


def make_network():
    """Return two convolutions, the features and a head, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
            nn.MaxPool2d(2),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 16, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        ).eval()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--output", type=pathlib.Path, default="without_labels.png")
    arguments = parser.parse_args(argv)

    digits = load_digits()
    images = np.uint8(digits.images * 255 / 16)[..., None].repeat(3, axis=3)
    X, X_test, y, y_test = train_test_split(
        images, digits.target, test_size=500, random_state=0, stratify=digits.target
    )
    # 5 labels of each class.
    few = np.concatenate([np.flatnonzero(y == k)[:5] for k in range(10)])

    settings = dict(
        preprocessing={
            "resize": SIZE,
            "crop": SIZE,
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
        },
        cache=None,
    )
    network = make_network()
    before = PretrainedFeatureExtractor(network, **settings).fit(X)
    views = PerImage(v2.RandomAffine(15, translate=(0.15, 0.15), shear=10))
    after = SelfSupervisedExtractor(
        network,
        method="simclr",
        augment=views,
        unfreeze="all",
        freeze_batch_norm=False,
        max_epochs=arguments.epochs,
        batch_size=256,
        learning_rate=5e-3,
        random_state=0,
        **settings,
    ).fit(X)

    pixels = [part.reshape(len(part), -1) for part in (X, X_test)]
    features = {"pixels": pixels}
    for name, extractor in (("random weights", before), ("trained", after)):
        features[name] = extractor.transform(X), extractor.transform(X_test)
    for name, (train, test) in features.items():
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        score = model.fit(train[few], y[few]).score(test, y_test)
        print(f"{name}: accuracy {score:.3f} with {len(few)} labels")

    figure, axes = plt.subplots(
        2, 2, figsize=(9, 7), layout="constrained", width_ratios=(1, 1.3)
    )
    for row, name in zip(axes, ("random weights", "trained"), strict=True):
        HypersphereDisplay.from_predictions(features[name][1], y_test, ax=row)
        row[0].set_title(name)
    figure.savefig(arguments.output, dpi=80)


if __name__ == "__main__":
    main()
