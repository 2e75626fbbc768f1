"""Addresses and mappings through the estimators, as a user gives them."""

import io
import json
import pickle
import warnings

import fsspec
import joblib
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from networks import CountingNet, rows_counted
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FineTuneClassifier,
    FineTuneRegressor,
    PretrainedFeatureExtractor,
)
from skdeepfeat.cache import FeatureCache, MappingCache
from skdeepfeat.feature_extraction import ExtractionSettings

SECRETS = {"key": "HUSH", "client_kwargs": {"password": "HUSH"}}
N = 12


@pytest.fixture
def images(request):
    """Return {address: bytes} of images in fsspec's memory."""
    rng = np.random.default_rng(0)
    fs, found = fsspec.filesystem("memory"), {}
    for i in range(N):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        found[f"memory://estimator-test/{i:02}.png"] = buffer.getvalue()
    fs.pipe(found)
    request.addfinalizer(lambda: fs.rm("/estimator-test", recursive=True))
    return found


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def extractor(log, **parameters):
    parameters = {"storage_options": {}, **parameters}
    return PretrainedFeatureExtractor(CountingNet(log), image_size=32, **parameters)


def small_net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def test_addresses_and_local_copies_share_rows(images, log, tmp_path):
    remote = extractor(log).fit_transform(list(images))
    paths = [tmp_path / f"{i}.png" for i in range(N)]
    for path, data in zip(paths, images.values(), strict=True):
        path.write_bytes(data)
    local = extractor(log, storage_options=None).fit_transform(paths)
    np.testing.assert_array_equal(remote, local)
    assert rows_counted(log) == N


def test_progress_while_they_are_read(images, log, monkeypatch, capsys):
    original, seconds = MemoryFileSystem.cat_file, [0.0]

    def cat_file(*args, **kwargs):
        seconds[0] += 0.15
        return original(*args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    # The clock of the bars, which come after a second.
    monkeypatch.setattr("tqdm.std.time", lambda: seconds[0])
    monkeypatch.setattr("skdeepfeat.images._remote._AT_ONCE", 1)
    extractor(log, verbose=0).fit_transform(list(images))
    assert capsys.readouterr().err == ""
    extractor(log, verbose=1, cache=None).fit_transform(list(images))
    shown = capsys.readouterr().err
    assert "reading: " in shown and f"/{N} [" in shown
    local = extractor(log, verbose=1, cache=None).fit_transform
    local(list(images.values()))
    assert "reading" not in capsys.readouterr().err


def test_they_are_read_only_when_asked(images, log):
    with pytest.raises(BadImageError, match=r"index 0, memory://.*storage_options={}"):
        extractor(log, storage_options=None).fit_transform(list(images))


@pytest.mark.parametrize("wrong", [True, "anon", [("key", "HUSH")]])
def test_storage_options_are_validated(images, log, wrong):
    for estimator in (extractor(log), FineTuneClassifier(small_net())):
        estimator.set_params(storage_options=wrong)
        with pytest.raises(ValueError, match="'storage_options' parameter"):
            estimator.fit(list(images), [0, 1] * (N // 2))


def test_failures_become_rows_of_nan(images, log):
    X = [*images, "memory://nowhere.png", "nosuch://a.png", "nosuch://b.png"]
    with pytest.warns(BadImageWarning) as caught:
        features = extractor(log, on_error="nan").fit_transform(X)
    assert np.isnan(features).all(axis=1).tolist() == [False] * N + [True] * 3
    causes = [failure.cause for failure in caught[0].message.failures]
    assert "no such file" in causes[0]
    assert "knows no protocol 'nosuch'" in causes[1]
    assert "for the reason given for nosuch://a.png" in causes[2]


def test_fine_tuning_reads_them(images):
    y, data = [0, 1] * (N // 2), list(images.values())
    options = {"image_size": 32, "max_epochs": 1, "random_state": 0}
    for estimator in (FineTuneClassifier, FineTuneRegressor):
        net = small_net()
        fitted = estimator(net, storage_options={}, **options).fit(list(images), y)
        local = estimator(net, cache=None, **options).fit(data, y)
        np.testing.assert_array_equal(fitted.predict(list(images)), local.predict(data))


# -- Secrets


@pytest.fixture(
    params=[PretrainedFeatureExtractor, FineTuneClassifier, FineTuneRegressor]
)
def secretive(request):
    return request.param(storage_options=SECRETS)


def test_secrets_are_not_shown(secretive):
    pipeline = Pipeline([("a", secretive)])
    search = GridSearchCV(pipeline, {"a__image_size": [32]})
    for estimator in (secretive, clone(secretive), pipeline, search):
        for shown in (repr(estimator), estimator._repr_html_(), str(estimator)):
            assert "HUSH" not in shown
            assert "key" in shown
    assert "HUSH" not in str(secretive.get_params())
    assert "HUSH" not in repr(ExtractionSettings(storage_options=SECRETS))


def test_parameters_stay_what_they_are(secretive):
    for estimator in (secretive, clone(secretive), clone(clone(secretive))):
        assert estimator.storage_options == SECRETS
        assert estimator.get_params()["storage_options"] == SECRETS
        estimator.set_params(**estimator.get_params())
        assert dict(estimator.storage_options) == SECRETS
        restored = pickle.loads(pickle.dumps(estimator))
        assert restored.storage_options == SECRETS
    assert (
        secretive.set_params(storage_options=None).get_params()["storage_options"]
        is None
    )


def test_an_error_in_another_parameter_does_not_show_them(secretive):
    with pytest.raises(ValueError) as caught:
        secretive.set_params(on_error="never").fit(["a.png"], [0])
    assert "HUSH" not in str(caught.value)


def test_secrets_are_not_saved(images, tmp_path):
    estimator = FineTuneClassifier(
        small_net(), image_size=32, max_epochs=1, storage_options={"key": "HUSH"}
    )
    estimator.fit(list(images), [0, 1] * (N // 2))
    estimator.save(tmp_path / "saved")
    assert b"HUSH" not in (tmp_path / "saved").read_bytes()
    loaded = FineTuneClassifier.load(tmp_path / "saved", model=small_net())
    # Whoever loads a file decides whether it may reach for the network.
    assert loaded.storage_options is None
    with pytest.raises(BadImageError, match="storage_options={}"):
        loaded.predict(list(images))
    loaded.set_params(storage_options={})
    np.testing.assert_array_equal(
        loaded.predict(list(images)), estimator.predict(list(images))
    )


def test_secrets_are_not_in_the_cache(images, log, private_cache, tmp_path):
    options = {"key": "HUSH"}
    extractor(log, storage_options=options).fit_transform(list(images))
    memory = joblib.Memory(tmp_path / "memory", verbose=0)
    pipeline = Pipeline(
        [("a", extractor(log, storage_options=options)), ("b", LogisticRegression())],
        memory=memory,
    )
    pipeline.fit(list(images), [0, 1] * (N // 2))
    for file in private_cache.rglob("*"):
        assert file.is_dir() or b"HUSH" not in file.read_bytes()
    for file in (tmp_path / "memory").rglob("metadata.json"):
        assert "HUSH" not in json.dumps(json.loads(file.read_text()))


# -- A mapping as the cache


@pytest.mark.parametrize("wrap", [lambda mapping: mapping, MappingCache])
def test_a_search_computes_each_image_once(images, log, wrap):
    """Clones share a mapping, also a plain dict, which clone itself would copy."""
    mapping = {}
    search = GridSearchCV(
        make_pipeline(extractor(log, cache=wrap(mapping)), LogisticRegression()),
        {"logisticregression__C": [0.1, 1.0]},
        cv=3,
    )
    search.fit(list(images), [0, 1] * (N // 2))
    assert rows_counted(log) == N
    assert len(mapping) == N + 2  # the namespace, and what its network computes


def test_a_mapping_is_not_shown_entry_by_entry(log):
    mapping = {"name": b"value" * 100}
    shown = repr(extractor(log, cache=mapping)) + str(extractor(log, cache=mapping))
    assert "value" not in shown
    assert "MappingCache(<dict>)" in shown


def test_a_place_that_two_machines_share(images, log, tmp_path, monkeypatch):
    mapping = fsspec.get_mapper(f"file://{tmp_path}/shared")
    first = extractor(log, cache=mapping).fit_transform(list(images))
    monkeypatch.setenv("SKDEEPFEAT_CACHE_DIR", str(tmp_path / "another machine"))
    mapping = fsspec.get_mapper(f"file://{tmp_path}/shared")
    again = extractor(log, cache=mapping).fit_transform(list(images))
    np.testing.assert_array_equal(first, again)
    assert rows_counted(log) == N
    assert FeatureCache().info().n_rows == 0


def test_a_mapping_that_fails_changes_nothing(images, log):
    class Gone(dict):
        def __getitem__(self, name):
            raise ConnectionError("gone")

    expected = extractor(log, cache=None).fit_transform(list(images))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = extractor(log, cache=Gone()).fit_transform(list(images))
    np.testing.assert_array_equal(found, expected)
    assert [warning.category.__name__ for warning in caught] == ["CacheWarning"]
