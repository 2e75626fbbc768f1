"""Draw the picture of the home page, docs/images/overview.png."""

import pathlib

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from skimage import data

IMAGES = pathlib.Path(__file__).parent / "images"


def arrow(ax, start, end, y=2.0):
    """Draw an arrow between two places."""
    ax.annotate(
        "",
        (end, y),
        (start, y),
        arrowprops={"arrowstyle": "-|>", "lw": 2, "color": "0.3"},
    )


def main():
    """Draw it."""
    figure, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
    ax.set(xlim=(0, 11.6), ylim=(-0.3, 4.1), aspect="equal")
    ax.axis("off")
    photographs = [data.chelsea(), data.coffee(), data.rocket()]
    for k, photograph in enumerate(photographs):
        side = min(photograph.shape[:2])
        square = photograph[:side, :side]
        bottom = 2.75 - 1.15 * k
        ax.imshow(square, extent=(0.1, 1.2, bottom, bottom + 1.1), zorder=2)
    heights = np.linspace(2.8, 1.2, 5)
    for k, height in enumerate(heights):
        box = plt.Rectangle((2.1 + 0.45 * k, 2 - height / 2), 0.3, height)
        ax.add_patch(box).set(facecolor="tab:blue", alpha=0.4 + 0.12 * k)
    head = ax.add_patch(plt.Rectangle((4.7, 1.6), 0.3, 0.8))
    head.set(facecolor="none", edgecolor="0.6", linestyle="--")
    ax.plot([4.6, 5.1], [1.4, 2.6], color="tab:red", lw=2)
    ax.plot([4.6, 5.1], [2.6, 1.4], color="tab:red", lw=2)
    rows = np.random.default_rng(0).random((3, 8))
    ax.imshow(rows, extent=(5.9, 8.1, 1.2, 2.8), cmap="Blues", zorder=2)
    box = plt.Rectangle((9.2, 1.2), 2.2, 1.6)
    ax.add_patch(box).set(facecolor="tab:orange", alpha=0.35)
    ax.text(10.3, 2, "any estimator\nof scikit-learn", ha="center", va="center")
    for x, label in [
        (0.65, "photos"),
        (3.6, "a pretrained network,\nits head chopped off"),
        (7.0, "features: a row for each,\nkept in the cache"),
        (10.3, "labels, probabilities"),
    ]:
        ax.text(x, 0.25, label, ha="center", va="top")
    for start, end in [(1.3, 2.0), (5.15, 5.8), (8.2, 9.1)]:
        arrow(ax, start, end)
    figure.savefig(IMAGES / "overview.png", dpi=100)


if __name__ == "__main__":
    main()
