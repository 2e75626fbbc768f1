"""Images without noise: an autoencoder that has learned to restore damaged digits.

    python examples/denoise.py [--epochs 30] [--output denoise.png]

Two autoencoders learn codes of 32 numbers for the handwritten digits that scikit-learn
ships. One of them sees damaged digits during training, and has to restore the clean
ones (Vincent et al. 2008). Both are then given damaged digits that they have not seen.
The picture shows how the second one restores them.
"""

import argparse
import pathlib

import matplotlib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdeepfeat import ConvAutoencoder

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from skdeepfeat.plotting import ReconstructionDisplay

NOISE = 0.8  # in standard deviations of the pixels
N_SHOWN = 10


def mean_error(images, clean):
    """Return the mean squared error of images, for values in [0, 1]."""
    return float((((images.astype(float) - clean) / 255) ** 2).mean())


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=pathlib.Path, default="denoise.png")
    arguments = parser.parse_args(argv)

    digits = np.uint8(load_digits().images * 255 / 16)[..., None]
    train, test = train_test_split(digits, test_size=200, random_state=0)
    settings = dict(
        n_components=32, image_size=16, max_epochs=arguments.epochs, random_state=0
    )
    plain = ConvAutoencoder(**settings).fit(train)
    denoising = ConvAutoencoder(
        corruption="gaussian", corruption_level=NOISE, **settings
    ).fit(train)

    clean = plain.resized(test)
    noise = np.random.default_rng(0).normal(scale=NOISE * clean.std(), size=clean.shape)
    noisy = np.uint8((clean + noise).clip(0, 255))
    print(f"damaged digits: error {mean_error(noisy, clean):.4f}")
    for name, autoencoder in (("plain", plain), ("denoising", denoising)):
        restored = autoencoder.inverse_transform(autoencoder.transform(noisy))
        print(f"{name} autoencoder: error {mean_error(restored, clean):.4f}")

    figure, axes = plt.subplots(3, N_SHOWN, figsize=(8, 2.7), layout="constrained")
    ReconstructionDisplay.from_estimator(
        denoising, clean, corrupted=noisy, k=N_SHOWN, ax=axes
    )
    figure.savefig(arguments.output, dpi=100)


if __name__ == "__main__":
    main()
