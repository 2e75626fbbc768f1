"""Regression: by how many degrees a handwritten digit is tilted.

    python examples/regression.py

The digits that scikit-learn ships are turned by a random angle; FineTuneRegressor and a
ridge regression on frozen features tell the angle from the image.
"""

import argparse

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import FineTuneRegressor, PretrainedFeatureExtractor


def tilted_digits(n_images, seed=0):
    """Return images (n, 32, 32) of uint8 and their angles in degrees."""
    rng = np.random.default_rng(seed)
    digits = load_digits().images
    # A one and a seven can be told upright from tilted; a zero cannot.
    usable = digits[np.isin(load_digits().target, [1, 4, 5, 7])]
    angles = rng.uniform(-45, 45, n_images)
    images = []
    for i, angle in zip(rng.integers(len(usable), size=n_images), angles, strict=True):
        image = Image.fromarray(np.uint8(usable[i] * 255 / 16))
        image = image.resize((32, 32), Image.Resampling.BICUBIC)
        images.append(np.asarray(image.rotate(angle, Image.Resampling.BICUBIC)))
    return np.stack(images), angles


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-train", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--image-size", type=int, default=64)
    arguments = parser.parse_args(argv)

    X, y = tilted_digits(arguments.n_train)
    X_test, y_test = tilted_digits(200, seed=1)
    frozen = make_pipeline(
        PretrainedFeatureExtractor(image_size=arguments.image_size),
        StandardScaler(),
        RidgeCV(np.logspace(-1, 5, 7)),
    )
    tuned = FineTuneRegressor(
        image_size=arguments.image_size,
        max_epochs=arguments.epochs,
        # A mirror image is tilted the other way: no mirroring here.
        augment=None,
        random_state=0,
        verbose=1,
    )
    for name, model in [("frozen features", frozen), ("fine-tuned", tuned)]:
        error = mean_absolute_error(y_test, model.fit(X, y).predict(X_test))
        print(f"{name:<16} mean absolute error {error:.1f} degrees")


if __name__ == "__main__":
    main()
