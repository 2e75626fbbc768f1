"""CIFAR-10 for the examples: from a file, or downloaded where that is asked for."""

import pathlib

import numpy as np

NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_BESIDE = pathlib.Path(__file__).resolve().parents[2] / "shared/data/cifar10_5k.npz"


def add_arguments(parser):
    """Let a command line say where the images are."""
    parser.add_argument(
        "--data",
        type=pathlib.Path,
        default=_BESIDE,
        help=".npz file with X_train, y_train, X_test, y_test: uint8, (n, 32, 32, 3)",
    )
    parser.add_argument(
        "--download",
        type=pathlib.Path,
        metavar="FOLDER",
        help="fetch CIFAR-10 (170 MB) into a folder, through torchvision",
    )


def load(arguments):
    """Return training images, names, test images and names."""
    if arguments.download is not None:
        from torchvision.datasets import CIFAR10

        parts = [
            CIFAR10(arguments.download, train=train, download=True)
            for train in (True, False)
        ]
        arrays = [(part.data, np.asarray(part.targets)) for part in parts]
    elif arguments.data.is_file():
        with np.load(arguments.data, allow_pickle=False) as data:
            arrays = [(data[f"X_{p}"], data[f"y_{p}"]) for p in ("train", "test")]
    else:
        missing = (
            "This example needs CIFAR-10"
            if arguments.data == _BESIDE
            else f"There is no file {str(arguments.data)!r}"
        )
        raise SystemExit(
            f"{missing}. Let --download FOLDER fetch it (170 MB), or name an .npz file "
            "of it with --data."
        )
    (X, y), (X_test, y_test) = arrays
    names = np.array(NAMES)
    return X, names[y], X_test, names[y_test]
