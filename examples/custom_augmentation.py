"""Augmentation of your own: textures look the same from every side.

    python examples/custom_augmentation.py

Patches of the brick, grass and gravel photographs that scikit-image ships. A
torchvision v2 transform is called with whole batches of uint8 tensors (n, 3, height,
width), and draws once for each batch: all its images are turned alike.
"""

import argparse
import pathlib

import numpy as np
import skimage.data
import torch
from PIL import Image
from torchvision.transforms import v2

from skdeepfeat import FineTuneClassifier

NAMES = ("brick", "grass", "gravel")


def texture_patches(n_a_class, side=96, seed=0):
    """Return training and test patches: of the upper and the lower half."""
    rng = np.random.default_rng(seed)
    folder = pathlib.Path(skimage.data.__file__).parent
    parts = {"train": ([], []), "test": ([], [])}
    for name in NAMES:
        photograph = np.asarray(Image.open(folder / f"{name}.png").convert("RGB"))
        half = len(photograph) // 2
        for part, rows in [("train", photograph[:half]), ("test", photograph[half:])]:
            for _ in range(n_a_class):
                top = rng.integers(rows.shape[0] - side)
                left = rng.integers(rows.shape[1] - side)
                parts[part][0].append(rows[top : top + side, left : left + side])
                parts[part][1].append(name)
    return [np.stack(parts["train"][0]), parts["train"][1]] + [
        np.stack(parts["test"][0]),
        parts["test"][1],
    ]


def turn_by_quarters(images):
    """Turn a whole batch by 0, 90, 180 or 270 degrees, from torch's generator."""
    return torch.rot90(images, int(torch.randint(4, ())), (2, 3))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n-a-class", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--image-size", type=int, default=64)
    arguments = parser.parse_args(argv)

    X, y, X_test, y_test = texture_patches(arguments.n_a_class)
    augment = v2.Compose(
        [
            v2.RandomHorizontalFlip(),
            v2.Lambda(turn_by_quarters),
            v2.ColorJitter(brightness=0.3, contrast=0.3),
        ]
    )
    for name, value in [("flip_crop", "flip_crop"), ("of our own", augment)]:
        clf = FineTuneClassifier(
            image_size=arguments.image_size,
            max_epochs=arguments.epochs,
            augment=value,
            random_state=0,
        )
        print(f"augment {name:<12} {clf.fit(X, y).score(X_test, y_test):.3f}")


if __name__ == "__main__":
    main()
