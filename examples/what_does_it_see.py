"""What a network looks at: activation maps, a deconvnet, and what its units respond to.

The network that is installed with this package tells four photographs apart. The
pictures show which parts of them are evidence for a class, for a linear model and for a
random forest, and what some units of the network have learned to respond to.

Run: python examples/what_does_it_see.py [--output what_does_it_see]
"""

import argparse
import io
import pathlib

import matplotlib
import numpy as np
from _photographs import NAMES, make_views
from PIL import Image
from skimage import data
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.inspection import activation_maps, dead_features
from skdeepfeat.plotting import (
    ActivationMapDisplay,
    DeconvnetDisplay,
    FilterDisplay,
    TopPatchesDisplay,
)

matplotlib.use("agg")

# Photographs of scikit-image, for the patches that excite a unit.
OTHERS = (
    "astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel",
    "hubble_deep_field", "page", "rocket", "text",
)  # fmt: skip


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=pathlib.Path, default="what_does_it_see")
    parser.add_argument("--n-views", type=int, default=60)
    arguments = parser.parse_args(argv)
    arguments.output.mkdir(parents=True, exist_ok=True)

    views, labels, names = make_views(arguments.n_views)
    y = np.array(names)[labels]
    extractor = PretrainedFeatureExtractor()
    linear = make_pipeline(extractor, StandardScaler(), LogisticRegression())
    linear.fit(views, y)

    # Two photographs side by side: the map of each class must light its own half.
    pair = side_by_side(square(data.chelsea()), square(data.coffee()))
    classes = ["chelsea", "coffee"]
    maps = activation_maps(linear, [pair, pair], classes, method="cam")
    halves = np.split(maps[:, :, [0, 1, 2, 4, 5, 6]], 2, axis=2)
    left, right = (half.mean(axis=(1, 2)) for half in halves)
    for name, one, other in zip(classes, left, right, strict=True):
        print(f"map of {name}: left half {one:.2f}, right half {other:.2f}")
    # The mean of a map, plus a constant, is the score.
    scores = linear.decision_function([pair])[0]
    gaps = scores[linear.classes_.searchsorted(classes)] - maps.mean(axis=(1, 2))
    zeros = np.zeros((1, extractor.fit(views).n_features_out_))
    constants = linear[1:].decision_function(zeros)[0]
    error = np.abs(gaps - constants[linear.classes_.searchsorted(classes)]).max()
    print(f"score - (mean of the map + constant): {error:.0e}")
    display = ActivationMapDisplay.from_estimator(
        linear, [pair, pair], classes, method="cam", kind=("image", "overlay")
    )
    save(display, arguments.output / "activation_maps.png")

    # A random forest has no gradients; parts of the image are covered instead.
    forest = make_pipeline(extractor, RandomForestClassifier(random_state=0))
    forest.fit(views, y)
    photographs = [square(getattr(data, name)()) for name in NAMES]
    display = ActivationMapDisplay.from_estimator(
        forest, photographs, method="occlusion", grid=4
    )
    save(display, arguments.output / "occlusion.png")

    # What the network has learned. Its activations are ReLU6, as a deconvnet needs.
    save(FilterDisplay.from_estimator(extractor), arguments.output / "filters.png")
    crops = make_crops(arguments.n_views)
    display = TopPatchesDisplay.from_estimator(
        extractor, crops, "blocks.1", [3, 11], projection="guided"
    )
    save(display, arguments.output / "top_patches.png")
    display = DeconvnetDisplay.from_estimator(
        extractor, photographs, "blocks.4", 10, guided=True
    )
    save(display, arguments.output / "deconvnet.png")
    features = dead_features(extractor, views)
    print(
        f"never active for these views: {features['never_active'].sum()} "
        f"of {len(features)} features"
    )


def square(photograph):
    """Return the center of a photograph."""
    side = min(photograph.shape[:2])
    top, left = ((n - side) // 2 for n in photograph.shape[:2])
    return photograph[top : top + side, left : left + side]


def side_by_side(*photographs, size=256):
    """Return photographs as the parts of one square image."""
    width = size // len(photographs)
    parts = []
    for photograph in photographs:
        shape = (size * photograph.shape[1] // photograph.shape[0], size)
        part = np.asarray(Image.fromarray(photograph).resize(shape))
        left = (part.shape[1] - width) // 2
        parts.append(part[:, left : left + width])
    return np.concatenate(parts, axis=1)


def make_crops(n_images, seed=0):
    """Return random parts of photographs of many kinds."""
    rng = np.random.default_rng(seed)
    photographs = [getattr(data, name)() for name in OTHERS]
    crops = []
    for i in range(n_images):
        photograph = photographs[i % len(photographs)]
        side = min(224, *photograph.shape[:2])
        top, left = (rng.integers(0, n - side + 1) for n in photograph.shape[:2])
        crops.append(photograph[top : top + side, left : left + side])
    return crops


def save(display, path):
    """Write a picture with few colors, which makes a small file."""
    buffer = io.BytesIO()
    display.figure_.savefig(buffer, dpi=80)
    Image.open(buffer).convert("RGB").quantize(256).save(path, optimize=True)
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
