"""Find wrong labels: images in the wrong folder are among the worst predictions.

    python examples/find_wrong_labels.py [--n-images 1000] [--share 0.05]

The handwritten digits that scikit-learn ships are written to one folder per class, and
some of them to a wrong folder. Each image is then predicted by a classifier that has
not seen it, so that no wrong label can be memorized. The images with the largest losses
are the ones to look at: ``wrong_labels.png`` shows the first, and the list of their
paths is printed.
"""

import argparse
import pathlib
import tempfile

import matplotlib
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import PretrainedFeatureExtractor, load_image_folder
from skdeepfeat.inspection import top_losses

matplotlib.use("Agg")
from skdeepfeat.plotting import TopLossesDisplay


def write_digits(folder, n_images, n_wrong, seed=0):
    """Write digits to one folder per class; return the names of the misplaced files."""
    digits = load_digits()
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(digits.target))[:n_images]
    misplaced = set()
    for n, i in enumerate(chosen.tolist()):
        label = digits.target[i]
        if n < n_wrong:
            label = (label + rng.integers(1, 10)) % 10
            misplaced.add(f"{i:04d}.png")
        place = pathlib.Path(folder, f"digit {label}")
        place.mkdir(exist_ok=True)
        image = Image.fromarray(np.uint8(digits.images[i] * 255 / 16))
        image.save(place / f"{i:04d}.png")
    return misplaced


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-images", type=int, default=1000)
    parser.add_argument("--share", type=float, default=0.05, help="of wrong labels")
    parser.add_argument("--output", type=pathlib.Path, default="wrong_labels.png")
    arguments = parser.parse_args(argv)
    n_wrong = round(arguments.share * arguments.n_images)

    with tempfile.TemporaryDirectory() as folder:
        misplaced = write_digits(folder, arguments.n_images, n_wrong)
        images = load_image_folder(folder)
        labels = np.asarray(images.target_names)[images.target]
        # Digits differ from photographs: an earlier layer than the neck suits them.
        classifier = make_pipeline(
            PretrainedFeatureExtractor(layer=3, image_size=64),
            StandardScaler(),
            LogisticRegression(C=0.1, max_iter=1000),
        )
        probabilities = cross_val_predict(
            classifier, images.data, labels, cv=5, method="predict_proba"
        )
        losses = top_losses(labels, probabilities, X=images.data, k=2 * n_wrong)
        display = TopLossesDisplay.from_predictions(labels, probabilities, images.data)
    display.figure_.savefig(arguments.output, dpi=80)
    suspects = [pathlib.Path(path) for path in losses["path"]]
    for path in suspects[:12]:
        print(f"look at {path.parent.name}/{path.name}")
    found = misplaced & {path.name for path in suspects}
    print(
        f"{len(found)} of {n_wrong} wrong labels are among the {len(suspects)} images "
        f"with the largest losses ({len(found) / n_wrong:.0%})"
    )


if __name__ == "__main__":
    main()
