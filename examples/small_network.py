"""A fine-tuned network made smaller: its score, its size and its time.

    python examples/small_network.py [--n-images 160] [--runtimes torch]
        [--output small_network.png]

The network tells parts of four photographs apart. It is made smaller and smaller by low
rank and by pruning, and every network is scored on images that were used for nothing
else. The picture shows the scores against the size and the time.
"""

import argparse
import pathlib

import matplotlib
from _photographs import make_views

from skdeepfeat import FineTuneClassifier
from skdeepfeat.compression import compression_curve

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from skdeepfeat.plotting import CompressionDisplay


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-images", type=int, default=160)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--runtimes", nargs="+", default="installed")
    parser.add_argument("--output", type=pathlib.Path, default="small_network.png")
    arguments = parser.parse_args(argv)

    images, labels, _ = make_views(2 * arguments.n_images)
    n = arguments.n_images
    clf = FineTuneClassifier(image_size=64, unfreeze=1, max_epochs=2, random_state=0)
    clf.fit(images[:n], labels[:n])
    curve = compression_curve(
        clf,
        images[n:],
        labels[n:],
        method=["low_rank", "prune"],
        steps=arguments.steps,
        validation_fraction=0.5,
        fine_tune_epochs=0,
        runtimes=arguments.runtimes,
        random_state=0,
    )
    print(curve[["method", "score", "parameters", "bytes", "pareto_bytes"]])

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for ax, against in zip(axes, ("bytes", "time"), strict=True):
        CompressionDisplay(curve=curve).plot(ax, against=against)
    figure.savefig(arguments.output, dpi=80)


if __name__ == "__main__":
    main()
