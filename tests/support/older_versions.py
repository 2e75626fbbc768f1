"""Write the fixtures of tests/test_older_versions.py with the version installed here.

    python tests/support/older_versions.py tests/data/VERSION

Run it before a format changes. The folder is then read by every later version, and its
files are never written again. The network is `SmallNet` of tests/support/networks.py,
which must stay importable under that name.
"""

import contextlib
import json
import pathlib
import pickle
import shutil
import sys
from unittest import mock

import numpy as np
import pytest
from networks import SmallNet

from skdeepfeat import FineTuneClassifier, FineTuneRegressor, PretrainedFeatureExtractor
from skdeepfeat.feature_extraction._partial_file import Partial
from skdeepfeat.training import _resume

N = 8
GEOMETRY = {"resize": 16, "crop": (16, 16), "interpolation": "bilinear"}
# What every fit shares. No parameter is left to a default that a version may change.
FIT = {
    "preprocessing": GEOMETRY,
    "unfreeze": "all",
    "max_epochs": 3,
    "head_epochs": 5,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "device": "cpu",
    "cache": None,
    "random_state": 0,
}


def make_images():
    """Return dark and bright images by turns, uint8 of shape (N, 16, 16, 3)."""
    images = np.random.default_rng(0).integers(0, 128, (N, 16, 16, 3), np.uint8)
    images[1::2] += 110
    return images


def extractors():
    """Return the extractors by the name of their expected rows."""
    return {
        "embedded": PretrainedFeatureExtractor(layer=0, image_size=16, device="cpu"),
        "module": PretrainedFeatureExtractor(
            SmallNet(), preprocessing=GEOMETRY, device="cpu"
        ),
    }


def classifier(**parameters):
    """Return the classifier whose files are kept."""
    return FineTuneClassifier(SmallNet(), **{**FIT, **parameters})


def regressor(**parameters):
    """Return the regressor whose files are kept."""
    return FineTuneRegressor(SmallNet(), **{**FIT, **parameters})


def write_rows(folder, images):
    """Write a cache, a mapping of rows, a half-written file and a pickle."""
    for name, extractor in extractors().items():
        extractor.set_params(cache=folder / "cache")
        np.save(folder / f"{name}_rows.npy", extractor.fit(images).transform(images))
    # One file that compresses well: SQLite's pages are nearly empty.
    shutil.make_archive(folder / "cache", "zip", folder / "cache")
    shutil.rmtree(folder / "cache")

    entries = {}
    extractors()["module"].set_params(cache=entries).transform(images)
    with open(folder / "mapping.json", "w") as file:
        json.dump({name: bytes(entry).hex() for name, entry in entries.items()}, file)

    extractor = extractors()["module"].set_params(cache=None, batch_size=2)
    with mock.patch.object(Partial, "write", interrupted_after(2, Partial.write)):
        with contextlib.suppress(KeyboardInterrupt):
            extractor.extract_to(images, folder / "features.npy")
    (folder / "features.npy.partial" / "lock").unlink(missing_ok=True)

    extractor = extractors()["module"].set_params(cache=None).fit(images)
    (folder / "extractor.pickle").write_bytes(pickle.dumps(extractor))


def interrupted_after(n_calls, function):
    """Return `function` that is interrupted, as by Ctrl-C, after so many calls."""
    calls = []

    def counted(*args):
        function(*args)
        calls.append(1)
        if len(calls) == n_calls:
            raise KeyboardInterrupt

    return counted


def write_fits(folder, images):
    """Write a checkpoint, a pickle and two saved models."""
    labels = np.array(["dark", "bright"])[np.arange(N) % 2]
    fitted = classifier().fit(images, labels)
    np.save(folder / "classifier_probabilities.npy", fitted.predict_proba(images))
    (folder / "classifier.pickle").write_bytes(pickle.dumps(fitted))
    fitted.save(folder / "classifier.safetensors")

    targets = images.mean((1, 2, 3)).astype(float)
    fitted = regressor().fit(images, targets)
    np.save(folder / "regressor_predictions.npy", fitted.predict(images))
    fitted.save(folder / "regressor.safetensors")

    stopping = interrupted_after(2, _resume.save_checkpoint)
    with mock.patch.object(_resume, "save_checkpoint", stopping):
        with pytest.warns(RuntimeWarning, match="interrupted after"):
            classifier(checkpoint=folder / "fit.checkpoint").fit(images, labels)


def main(folder):
    """Write all fixtures into a new folder."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    images = make_images()
    np.save(folder / "images.npy", images)
    write_rows(folder, images)
    write_fits(folder, images)


if __name__ == "__main__":
    main(*sys.argv[1:])
