"""Which network, which layer, which head, and is fine-tuning worth it?

    python examples/which_network.py

`TransferAdvisor` decides by measurement, within a budget of seconds. The task: of which
photograph is this a part? It comes with scikit-image. The candidates are the installed
network, the same network with random weights, and a small network of our own. Writes
`which_network.png`.
"""

import argparse

import matplotlib

matplotlib.use("agg")

import numpy as np
from _photographs import make_views
from torch import nn

from skdeepfeat import PretrainedFeatureExtractor, TransferAdvisor
from skdeepfeat.plotting import AdviceDisplay


def small_network():
    """Return a network with random weights, the cheapest there is."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 2),
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-images", type=int, default=160)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--time-budget", type=float, default=30, help="seconds (30)")
    arguments = parser.parse_args(argv)

    images, labels, names = make_views(arguments.n_images)
    labels = np.array(names)[labels]
    test_images, test_labels, _ = make_views(80, seed=1)
    test_labels = np.array(names)[test_labels]

    extractor = PretrainedFeatureExtractor(image_size=arguments.image_size)
    advisor = TransferAdvisor(
        models=[
            "efficientnet_lite0",
            PretrainedFeatureExtractor(
                weights="random", image_size=arguments.image_size
            ),
            small_network(),
        ],
        time_budget=arguments.time_budget,
        extractor=extractor,
        random_state=0,
    )
    advisor.fit(images, labels)
    print(advisor.recommendation_)
    columns = ["candidate", "n_images", "score", "standard_error", "images_per_second"]
    decision = advisor.results_.query("stage == 'decision'")
    print(decision[columns].round(3).to_string(index=False))
    print(f"accuracy on new images: {advisor.score(test_images, test_labels):.3f}")
    AdviceDisplay.from_estimator(advisor).figure_.savefig("which_network.png", dpi=100)


if __name__ == "__main__":
    main()
