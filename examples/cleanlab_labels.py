"""Find wrong labels with cleanlab, from predictions of images not seen before.

    python examples/cleanlab_labels.py [--n-images 600] [--share 0.05]

Some of the handwritten digits that scikit-learn ships get a wrong label. cleanlab
estimates from cross-validated probabilities which labels are wrong, and how many.
`top_losses` of this package, which needs no other package, is given as many guesses.
Needs pip install cleanlab.
"""

import argparse

import numpy as np
from cleanlab.filter import find_label_issues
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.inspection import top_losses


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-images", type=int, default=600)
    parser.add_argument("--share", type=float, default=0.05, help="of wrong labels")
    arguments = parser.parse_args(argv)
    n_wrong = round(arguments.share * arguments.n_images)

    digits = load_digits()
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(digits.target))[: arguments.n_images]
    images = np.uint8(digits.images[chosen] * 255 / 16)
    labels = digits.target[chosen]
    labels[:n_wrong] = (labels[:n_wrong] + rng.integers(1, 10, n_wrong)) % 10

    # Digits differ from photographs: an earlier layer than the neck suits them.
    classifier = make_pipeline(
        PretrainedFeatureExtractor(layer=3, image_size=64),
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=1000),
    )
    probabilities = cross_val_predict(
        classifier, images, labels, cv=5, method="predict_proba"
    )
    issues = find_label_issues(
        labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    losses = top_losses(labels, probabilities, k=len(issues))
    print(f"{n_wrong} of {len(labels)} labels are wrong")
    for name, suspects in {"cleanlab": issues, "top_losses": losses["index"]}.items():
        found = int(np.sum(np.asarray(suspects) < n_wrong))
        print(f"{name:10s} suspects {len(suspects)}, {found} of them are wrong")


if __name__ == "__main__":
    main()
