"""Cats against dogs by name: fine-tune, look at the history, use the tuned body.

    python examples/cats_and_dogs.py [--n-train 1000] [--epochs 6]

Needs CIFAR-10: see ``--data`` and ``--download``.
"""

import argparse

import numpy as np
from _cifar import add_arguments, load
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--n-train", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--image-size", type=int, default=96)
    arguments = parser.parse_args(argv)

    X, y, X_test, y_test = load(arguments)
    pets, pets_test = np.isin(y, ["cat", "dog"]), np.isin(y_test, ["cat", "dog"])
    rows = np.random.default_rng(0).permutation(np.flatnonzero(pets))
    rows = rows[: arguments.n_train]
    X, y, X_test, y_test = X[rows], y[rows], X_test[pets_test], y_test[pets_test]
    # What is looked at while the network trains is not what it is judged by.
    X, X_val, y, y_val = train_test_split(
        X, y, test_size=0.2, stratify=y, random_state=0
    )

    # Phase one fits the head on frozen features, phase two trains the whole network.
    clf = FineTuneClassifier(
        image_size=arguments.image_size,
        max_epochs=arguments.epochs,
        random_state=0,
        verbose=1,
    )
    clf.fit(X, y, X_val=X_val, y_val=y_val)
    print(clf.history_.drop(columns="learning_rate").round(3).to_string(index=False))
    print("labels come back as they went in:", clf.predict(X_test[:4]))
    print(f"fine-tuned:      {clf.score(X_test, y_test):.3f}")

    # The tuned body is a network like any other, with rows of its own in the cache.
    for name, model in [
        ("frozen body", "efficientnet_lite0"),
        ("tuned body", clf.body_),
    ]:
        features = PretrainedFeatureExtractor(model, image_size=arguments.image_size)
        pipe = make_pipeline(features, StandardScaler(), LogisticRegression(C=0.003))
        print(f"{name + ':':<16} {pipe.fit(X, y).score(X_test, y_test):.3f}")


if __name__ == "__main__":
    main()
