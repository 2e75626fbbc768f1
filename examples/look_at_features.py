"""Look at features: which layer suits a task, what is near what, what is confused.

    python examples/look_at_features.py [--output FOLDER]

Four pictures, from small parts of seven photographs and from handwritten digits:
``layer_probe.png`` (the accuracy of a linear model on each stage of a network, with
pretrained and with random weights), ``similarity.png`` (how alike the stages are),
``embedding.png`` (a map of the features) and ``confusions.png`` (a confusion matrix
with an example in each cell).
"""

import argparse
import pathlib

import matplotlib
import numpy as np
from _photographs import NAMES, make_views
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import PretrainedFeatureExtractor

matplotlib.use("Agg")
from skdeepfeat.plotting import (
    ConfusionGalleryDisplay,
    EmbeddingDisplay,
    LayerProbeDisplay,
    SimilarityDisplay,
)

PHOTOGRAPHS = (*NAMES, "immunohistochemistry", "retina", "hubble_deep_field")


def probe_layers(folder):
    """Compare the stages of a network for handwritten digits."""
    digits = load_digits()
    X, y = digits.images[:400] / 16, digits.target[:400]
    pretrained = PretrainedFeatureExtractor(image_size=64)
    random = PretrainedFeatureExtractor(image_size=64, weights="random")
    probe = LayerProbeDisplay.from_estimator(pretrained, X, y, name="pretrained")
    LayerProbeDisplay.from_estimator(random, X, y, name="random weights", ax=probe.ax_)
    probe.ax_.set_title("400 handwritten digits")
    probe.figure_.savefig(folder / "layer_probe.png", dpi=80)
    best = probe.probe.loc[probe.probe["score"].idxmax()]
    print(f"best layer for digits: {best['layer']}, accuracy {best['score']:.3f}")

    networks = {"pretrained": pretrained, "random": random}
    alike = SimilarityDisplay.from_estimator(networks, X, "stages")
    alike.figure_.savefig(folder / "similarity.png", dpi=70)


def show_photographs(folder):
    """Draw a map of small parts of photographs, and which of them are confused."""
    X, labels, names = make_views(350, names=PHOTOGRAPHS, sides=(16, 32))
    y = np.array([name.replace("_", " ") for name in names])[labels]
    classifier = make_pipeline(
        PretrainedFeatureExtractor(image_size=64),
        StandardScaler(),
        LogisticRegression(C=0.01),
    )
    display = EmbeddingDisplay.from_estimator(classifier[0], X, y, random_state=0)
    display.figure_.savefig(folder / "embedding.png", dpi=75)
    confusions = ConfusionGalleryDisplay.from_estimator(classifier, X, y, cv=5)
    confusions.figure_.savefig(folder / "confusions.png", dpi=75)
    n_wrong = confusions.matrix_.sum() - np.trace(confusions.matrix_)
    print(f"{n_wrong} of {len(y)} parts of photographs are confused")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=pathlib.Path, default="look_at_features")
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)
    probe_layers(arguments.output)
    show_photographs(arguments.output)


if __name__ == "__main__":
    main()
