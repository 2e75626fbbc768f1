"""A network of your own as the neck, and a look into its layers.

Any torch.nn.Module serves. What it computes is its identity in the cache: changed
weights or a changed `forward` get rows of their own.

Run: python examples/own_network.py
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skdeepfeat import PretrainedFeatureExtractor, list_layers


def make_network(seed=0):
    """Return a small convolutional network with random filters.

    Random filters alone are a fair start for tiny images (Saxe et al., "On random
    weights and unsupervised feature learning", ICML 2011).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )


def main():
    digits = load_digits()
    images = (digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 0..255
    network = make_network()
    # The pixels as they are: no resize, no crop, scaled to [-1, 1].
    preprocessing = {
        "resize": (8, 8),
        "crop": (8, 8),
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
    }
    print(list_layers(network, image_size=8).round(3).to_string())
    for layer, pooling in [(None, "auto"), ("4", "flatten"), ("1", "max")]:
        neck = PretrainedFeatureExtractor(
            network, preprocessing=preprocessing, layer=layer, pooling=pooling
        )
        model = make_pipeline(neck, StandardScaler(), LogisticRegression(max_iter=500))
        scores = cross_val_score(model, images, digits.target, cv=3)
        print(f"layer {layer}, pooling {pooling}: accuracy {scores.mean():.3f}")


if __name__ == "__main__":
    main()
