"""Choose by measurement a network, a layer, a head, and whether to fine-tune.

    python examples/which_network.py

`TransferAdvisor` decides by measurement, within a budget of seconds. The task is to
read the digits that come with scikit-learn. The candidates are the installed network,
the same network with random weights, and a small network of our own, also random.
Prints the recommendation and what it rests on, and draws `which_network.png`.
"""

import argparse

import matplotlib

matplotlib.use("agg")

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from skdeepfeat import PretrainedFeatureExtractor, TransferAdvisor
from skdeepfeat.plotting import AdviceDisplay


def small_network():
    """Return a network with random weights, the cheapest there is."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) / 8)
    return network


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-train", type=int, default=300)
    parser.add_argument("--image-size", type=int, default=32, help="pixels (32)")
    parser.add_argument("--time-budget", type=float, default=30, help="seconds (30)")
    arguments = parser.parse_args(argv)

    digits = load_digits()
    X, X_test, y, y_test = train_test_split(
        digits.images / 16,
        digits.target,
        train_size=arguments.n_train,
        random_state=0,
        stratify=digits.target,
    )
    extractor = PretrainedFeatureExtractor(image_size=arguments.image_size)
    random = PretrainedFeatureExtractor(
        weights="random", image_size=arguments.image_size
    )
    advisor = TransferAdvisor(
        models=["efficientnet_lite0", random, small_network()],
        time_budget=arguments.time_budget,
        extractor=extractor,
        random_state=0,
    )
    advisor.fit(X, y)
    print(advisor.recommendation_, "\n")
    columns = ["candidate", "n_images", "score", "standard_error", "images_per_second"]
    decision = advisor.results_.query("stage == 'decision'")
    print(decision[columns].round(3).to_string(index=False), "\n")
    print(
        f"accuracy on {len(X_test)} other digits: {advisor.score(X_test, y_test):.3f}"
    )
    AdviceDisplay.from_estimator(advisor).figure_.savefig("which_network.png", dpi=80)


if __name__ == "__main__":
    main()
