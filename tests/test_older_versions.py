"""Files that older versions wrote are read, or refused by a clear error.

Nothing has been released, so a newer version may refuse an older one's files. What is
promised already: no crash, no wrong row, and an error that names the file or the
parameter. `tests/support/older_versions.py` writes a folder of `tests/data`.
"""

import json
import pathlib
import pickle
import shutil
import warnings

import numpy as np
import older_versions
import pytest
from numpy.testing import assert_allclose

from skdeepfeat import CacheWarning, FeatureCache, FineTuneClassifier, FineTuneRegressor

FOLDERS = sorted((pathlib.Path(__file__).parent / "data").iterdir())
LABELS = np.array(["dark", "bright"])[np.arange(older_versions.N) % 2]
NETWORKS = list(older_versions.extractors())
# Runtimes and processors round otherwise than those that wrote the files.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def old(request, tmp_path):
    """Return a copy of the files that one version wrote."""
    return shutil.copytree(request.param, tmp_path / "old")


@pytest.fixture
def images(old):
    return np.load(old / "images.npy")


@pytest.mark.parametrize("network", NETWORKS)
def test_cache(old, images, network):
    """The rows are right, whether they are found or the file is quarantined."""
    shutil.unpack_archive(old / "cache.zip", old / "cache")
    extractor = older_versions.extractors()[network].set_params(cache=old / "cache")
    expected = np.load(old / f"{network}_rows.npy")
    with warnings.catch_warnings():
        # "The file has been quarantined" is a way to refuse it.
        warnings.simplefilter("ignore", CacheWarning)
        assert_allclose(extractor.transform(images), expected, **CLOSE)
    # From now on it is a cache as any other.
    assert FeatureCache(old / "cache").check().ok
    assert_allclose(extractor.transform(images), expected, **CLOSE)


def test_mapping_of_rows(old, images):
    text = json.loads((old / "mapping.json").read_text())
    entries = {name: bytes.fromhex(entry) for name, entry in text.items()}
    extractor = older_versions.extractors()["module"].set_params(cache=entries)
    assert_allclose(
        extractor.transform(images), np.load(old / "module_rows.npy"), **CLOSE
    )


def test_half_written_file(old, images):
    """It is finished, or refused by the name of what is to be removed."""
    extractor = older_versions.extractors()["module"].set_params(cache=None)
    path = old / "features.npy"
    try:
        extractor.extract_to(images, path)
    except FileExistsError as error:
        assert "features.npy.partial" in str(error)
        shutil.rmtree(old / "features.npy.partial")
        extractor.extract_to(images, path)
    assert_allclose(np.load(path), np.load(old / "module_rows.npy"), **CLOSE)
    assert not (old / "features.npy.partial").exists()


def test_pickled_extractor(old, images):
    extractor = pickle.loads((old / "extractor.pickle").read_bytes())
    expected = np.load(old / "module_rows.npy")
    assert_allclose(extractor.transform(images), expected, **CLOSE)


def pickled(old):
    return pickle.loads((old / "classifier.pickle").read_bytes())


def saved(old):
    model = older_versions.SmallNet()
    return FineTuneClassifier.load(old / "classifier.safetensors", model=model)


@pytest.mark.parametrize("read", [pickled, saved])
def test_fitted_classifier(old, images, read):
    try:
        fitted = read(old)
    except ValueError as error:
        assert "FineTuneClassifier" in str(error) or "classifier." in str(error)
        return
    expected = np.load(old / "classifier_probabilities.npy")
    assert_allclose(fitted.predict_proba(images), expected, **CLOSE)
    assert fitted.predict(images).tolist() == LABELS.tolist()


def test_saved_regressor(old, images):
    try:
        fitted = FineTuneRegressor.load(
            old / "regressor.safetensors", model=older_versions.SmallNet()
        )
    except ValueError as error:
        assert "regressor.safetensors" in str(error)
        return
    expected = np.load(old / "regressor_predictions.npy")
    assert_allclose(fitted.predict(images), expected, **CLOSE)


def test_checkpoint(old, images):
    """It is taken up, to end as the uninterrupted fit did, or refused by its name."""
    classifier = older_versions.classifier(checkpoint=old / "fit.checkpoint")
    try:
        classifier.fit(images, LABELS)
    except ValueError as error:
        assert str(error).startswith("The 'checkpoint' file ")
        return
    assert classifier.n_epochs_ == 3
    expected = np.load(old / "classifier_probabilities.npy")
    assert_allclose(classifier.predict_proba(images), expected, **CLOSE)
