"""Columns of Hugging Face data sets as X."""

import io
import sys
import types

import joblib
import numpy as np
import pytest
from networks import CountingNet, rows_counted
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor
from skdeepfeat._utils._digests import digest_bytes
from skdeepfeat.images import make_image_source

N = 8
datasets = pytest.importorskip("datasets", reason="datasets is not installed")


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 20, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoded(pixels):
    files = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        files.append(file.getvalue())
    return files


@pytest.fixture
def data(encoded):
    columns = {
        "image": [{"bytes": image, "path": None} for image in encoded],
        "label": [0, 1] * (N // 2),
    }
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def extractor(tmp_path):
    net = CountingNet(tmp_path / "log")
    return PretrainedFeatureExtractor(
        net, image_size=16, cache=tmp_path / "cache", runtime="torch"
    )


def check_is_encoded(X, encoded, pixels):
    source = make_image_source(X)
    digests, failures = source.digests()
    assert digests == [digest_bytes(image) for image in encoded]
    assert failures == {}
    assert_array_equal(source.pixels(len(encoded) - 1), pixels[-1])


FORMS = {
    "column": lambda data: data["image"],
    "not decoded": lambda data: data.cast_column("image", datasets.Image(decode=False))[
        "image"
    ],
    "one column": lambda data: data.select_columns("image"),
    "numpy": lambda data: data.with_format("numpy")["image"],
    "torch": lambda data: data.with_format("torch")["image"],
    "dicts": lambda data: data.cast_column("image", datasets.Image(decode=False))[
        "image"
    ][:],
}


@pytest.mark.parametrize("form", FORMS)
def test_bytes_are_hashed(data, encoded, pixels, form):
    check_is_encoded(FORMS[form](data), encoded, pixels)


def test_selected_and_stored(data, encoded, pixels, tmp_path):
    order = [3, 1, 6]
    chosen = data.select(order)["image"]
    check_is_encoded(chosen, [encoded[i] for i in order], pixels[order])
    data.save_to_disk(tmp_path / "stored")
    stored = datasets.load_from_disk(tmp_path / "stored").shuffle(seed=0)
    digests, _ = make_image_source(stored["image"]).digests()
    assert sorted(digests) == sorted(digest_bytes(image) for image in encoded)


def test_paths_and_missing_images(encoded, tmp_path):
    path = tmp_path / "0.png"
    path.write_bytes(encoded[0])
    values = [str(path), None, str(tmp_path / "gone.png")]
    data = datasets.Dataset.from_dict({"image": values})
    digests, failures = make_image_source(data["image"]).digests()  # texts
    assert digests == [digest_bytes(encoded[0]), None, None]
    assert "missing value" in str(failures[1])
    images = data.cast_column("image", datasets.Image())["image"]
    digests, failures = make_image_source(images).digests()
    assert digests == [digest_bytes(encoded[0]), None, None]
    assert sorted(failures) == [1, 2]


def test_what_datasets_changes_is_honored(data, pixels):
    gray = data.cast_column("image", datasets.Image(mode="L"))["image"]
    wanted = np.asarray(Image.fromarray(pixels[2]).convert("L"))
    assert_array_equal(np.squeeze(make_image_source(gray).pixels(2)), wanted)
    mirrored = data.with_transform(
        lambda rows: {"image": [np.asarray(one)[:, ::-1] for one in rows["image"]]}
    )["image"]
    assert_array_equal(make_image_source(mirrored).pixels(2), pixels[2, :, ::-1])


def test_nothing_is_computed_twice(data, extractor, tmp_path):
    first = extractor.fit_transform(data["image"])
    n_computed = rows_counted(tmp_path / "log")
    again = extractor.transform(data.select(range(N - 1, -1, -1))["image"])
    assert_array_equal(first[::-1], again)
    assert rows_counted(tmp_path / "log") == n_computed == N


def test_estimators(data, extractor):
    not_decoded = data.cast_column("image", datasets.Image(decode=False))
    pipeline = make_pipeline(extractor, LogisticRegression())
    for column in (data["image"], not_decoded["image"]):
        scores = cross_val_score(pipeline, column, data["label"], cv=2)
        assert len(scores) == 2
    tuned = FineTuneClassifier(image_size=32, unfreeze=None, cache=None)
    assert len(tuned.fit(data["image"], data["label"]).predict(data["image"])) == N


def test_description(data, extractor):
    for X in (data["image"], data.select_columns("image")):
        found = extractor.describe(X)
        assert (found.n_images, found.n_hits) == (N, 0)
        assert found.seconds_per_image > 0


def test_workers(data, extractor, tmp_path):
    alone = extractor.set_params(cache=None).transform(data["image"])
    together = extractor.set_params(n_jobs=2)
    with joblib.parallel_config(backend="threading"):
        assert_array_equal(together.transform(data["image"]), alone)


def test_no_images(data, extractor):
    with pytest.raises(ValueError, match="0 sample"):
        extractor.fit(data.select([])["image"])


def test_whole_data_sets(data):
    with pytest.raises(ValueError, match=r"X\['image'\].*2 columns"):
        make_image_source(data)
    photos = data.rename_column("image", "photo")
    with pytest.raises(ValueError, match=r"X\['photo'\]"):
        make_image_source(photos)
    with pytest.raises(TypeError, match=r"X\['train'\]\['image'\]"):
        make_image_source(datasets.DatasetDict(train=data))
    for estimator in (PretrainedFeatureExtractor(), FineTuneClassifier()):
        with pytest.raises(TypeError, match=r"X\['train'\]\['image'\]"):
            estimator.fit(datasets.DatasetDict(train=data), data["label"])
    with pytest.raises(TypeError, match="streamed"):
        make_image_source(data.to_iterable_dataset())
    with pytest.raises(TypeError, match="numbers"):
        make_image_source(data["label"])


def test_a_module_of_that_name_of_the_users_own(monkeypatch, pixels):
    monkeypatch.setitem(sys.modules, "datasets", types.ModuleType("datasets"))
    assert len(make_image_source(list(pixels))) == N
