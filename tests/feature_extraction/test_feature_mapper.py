"""The extractor as a function of batches: alone, in datasets, in Ray Data."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from networks import CountingNet, rows_counted
from PIL import Image

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FeatureMapper,
    PretrainedFeatureExtractor,
)

N = 6
SUPPORT = os.path.dirname(sys.modules["networks"].__file__)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (N, 20, 24, 3), dtype=np.uint8)


@pytest.fixture
def net(tmp_path):
    return CountingNet(tmp_path / "log")


@pytest.fixture
def paths(pixels, tmp_path):
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{i}.png")
    return [str(tmp_path / f"{i}.png") for i in range(N)]


def make_mapper(net, **parameters):
    parameters = {"image_size": 16, "cache": None, **parameters}
    return FeatureMapper(PretrainedFeatureExtractor(net, **parameters))


@pytest.fixture
def mapper(net):
    return make_mapper(net)


@pytest.fixture
def expected(net, pixels):
    extractor = PretrainedFeatureExtractor(net, image_size=16, cache=None)
    return extractor.transform(pixels)


def encoded(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def as_objects(values):
    array = np.empty(len(values), object)
    for number, value in enumerate(values):
        array[number] = value
    return array


# What one image, and what a column of them, may be in a batch.
ELEMENTS = {
    "array": lambda pixels, path: pixels,
    "bytes": lambda pixels, path: encoded(pixels),
    "path": lambda pixels, path: path,
    "PIL": lambda pixels, path: Image.fromarray(pixels),
    "bytes and path": lambda pixels, path: {"bytes": encoded(pixels), "path": None},
    "only a path": lambda pixels, path: {"bytes": None, "path": path},
    "nested lists": lambda pixels, path: pixels.tolist(),
    "tensor": lambda pixels, path: torch.from_numpy(pixels).permute(2, 0, 1),
}
AMBIGUOUS = ["array", "nested lists", "tensor"]  # one image, or a batch of grey ones
BATCHES = {
    "dict of lists": lambda column: {"image": column, "label": list(range(N))},
    "dict of object arrays": lambda column: {
        "image": as_objects(column),
        "label": np.arange(N),
    },
    "pandas": lambda column: pd.DataFrame(
        {"image": as_objects(column), "label": range(N)}, index=range(9, 15)
    ),
}


@pytest.mark.parametrize("element", ELEMENTS)
@pytest.mark.parametrize("kind", BATCHES)
def test_batches(mapper, expected, pixels, paths, kind, element):
    column = [ELEMENTS[element](*pair) for pair in zip(pixels, paths, strict=True)]
    batch = BATCHES[kind](column)
    result = mapper(batch)
    assert type(result) is type(batch)
    assert list(result) == ["image", "label", "features"]
    np.testing.assert_allclose(np.stack(list(result["features"])), expected, rtol=1e-5)
    assert list(result["label"]) == list(range(N))
    assert "features" not in batch
    if kind == "pandas":
        assert result.index.equals(batch.index)


@pytest.mark.parametrize("element", ["bytes", "path", "bytes and path"])
def test_polars_frames(mapper, expected, pixels, paths, element):
    column = [ELEMENTS[element](*pair) for pair in zip(pixels, paths, strict=True)]
    result = mapper(pl.DataFrame({"image": column, "label": range(N)}))
    assert result.columns == ["image", "label", "features"]
    assert result.schema["features"] == pl.Array(pl.Float32, 8)
    np.testing.assert_allclose(result["features"].to_numpy(), expected, rtol=1e-5)


ARROW = {
    "bytes": lambda pixels, paths: pa.array([encoded(one) for one in pixels]),
    "paths": lambda pixels, paths: pa.array(paths),
    "structs": lambda pixels, paths: pa.array(
        [{"bytes": encoded(pixels[0]), "path": None}]
        + [{"bytes": None, "path": path} for path in paths[1:]]
    ),
    "nested lists": lambda pixels, paths: pa.array(pixels.tolist()),
    "tensors": lambda pixels, paths: pa.FixedShapeTensorArray.from_numpy_ndarray(
        pixels
    ),
    "chunks": lambda pixels, paths: pa.chunked_array([paths[:2], paths[2:]]),
}


@pytest.mark.parametrize("kind", ARROW)
def test_arrow_tables(mapper, expected, pixels, paths, kind):
    table = pa.table({"image": ARROW[kind](pixels, paths), "label": range(N)})
    result = mapper(table)
    assert result.column_names == ["image", "label", "features"]
    assert result.schema.field("features").type == pa.list_(pa.float32(), 8)
    np.testing.assert_allclose(result["features"].to_pylist(), expected, rtol=1e-5)
    again = mapper(result)
    assert again.schema == result.schema
    np.testing.assert_allclose(again["features"].to_pylist(), expected, rtol=1e-5)


@pytest.mark.parametrize("images", [lambda x: x, lambda x: x / 255.0])
def test_a_stack_of_images(mapper, expected, pixels, images):
    result = mapper({"image": images(pixels)})
    assert result["features"].dtype == np.float32
    np.testing.assert_allclose(result["features"], expected, rtol=1e-5)


@pytest.mark.parametrize("as_column", [np.asarray, list, lambda x: as_objects(list(x))])
def test_bytes_that_have_become_integers(mapper, expected, pixels, as_column):
    result = mapper({"image": as_column(pixels.astype(np.int64))})
    np.testing.assert_allclose(result["features"], expected, rtol=1e-5)
    for wrong in (pixels.astype(np.int64) + 1, pixels.astype(np.int64) - 1):
        with pytest.raises((ValueError, TypeError), match="int64"):
            mapper({"image": as_column(wrong)})


def test_columns_are_the_users(net, pixels, expected):
    mapper = FeatureMapper(
        PretrainedFeatureExtractor(net, image_size=16, cache=None),
        image_column="photo",
        feature_column="deep",
        keep_columns=False,
    )
    photos = {"photo": [encoded(one) for one in pixels], "other": [0] * N}
    for make in (dict, pd.DataFrame, pl.DataFrame, pa.table):
        result = mapper(make(photos))
        names = result.keys() if make is dict else result.columns
        assert len(names) == 1
        found = result["deep"]
        found = found.to_pylist() if make is pa.table else list(found)
        np.testing.assert_allclose(np.stack(found), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["column_names", "columns", "with_columns", "assign"])
def test_columns_with_the_names_of_methods(name, mapper, pixels, expected):
    # A pandas frame has its columns as attributes.
    photos = {"image": [encoded(one) for one in pixels], name: [0] * N}
    result = mapper(pd.DataFrame(photos))
    assert list(result) == ["image", name, "features"]
    np.testing.assert_allclose(np.stack(result["features"]), expected, rtol=1e-5)


def test_an_empty_batch_has_the_same_columns(mapper):
    assert mapper({"image": []})["features"].shape == (0, 8)
    table = mapper(pa.table({"image": pa.array([], pa.binary())}))
    assert table.schema.field("features").type == pa.list_(pa.float32(), 8)


def test_broken_images(net, pixels):
    batch = {"image": [encoded(pixels[0]), b"no image", None]}
    with pytest.raises(
        BadImageError, match="index 2: .*missing|index 2, None: missing"
    ):
        make_mapper(net)(batch)
    with pytest.warns(BadImageWarning):
        rows = make_mapper(net, on_error="nan")(batch)
    assert np.isnan(rows["features"]).any(axis=1).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"image_column": 3}, TypeError, "The 'image_column' parameter .* Got 3"),
        ({"feature_column": None}, TypeError, "The 'feature_column' parameter"),
        ({"keep_columns": "no"}, TypeError, "The 'keep_columns' parameter"),
        ({"extractor": "resnet50"}, TypeError, "The 'extractor' .* Got 'resnet50'"),
        (
            {"extractor": PretrainedFeatureExtractor(pooling="median")},
            ValueError,
            "The 'pooling' parameter",
        ),
    ],
)
def test_parameters_are_checked(parameters, error, message):
    with pytest.raises(error, match=message):
        FeatureMapper(**parameters)


def test_changes_of_the_extractor_do_not_matter(net, pixels, expected):
    extractor = PretrainedFeatureExtractor(net, image_size=16, cache=None)
    mapper = FeatureMapper(extractor)
    before = pickle.dumps(mapper)
    extractor.fit(pixels).set_params(pooling="flatten", image_size=20)
    assert mapper.extractor.model is net
    assert pickle.dumps(mapper) == before
    np.testing.assert_allclose(mapper({"image": pixels})["features"], expected, 1e-5)


def test_wrong_batches(mapper, pixels, paths):
    with pytest.raises(ValueError, match="columns .'images'.*Did you mean 'images'"):
        mapper({"images": pixels})
    with pytest.raises(TypeError, match="batched=True.*Got list"):
        mapper(list(pixels))
    with pytest.raises(TypeError, match="PretrainedFeatureExtractor.*Got str"):
        mapper(paths[0])
    with pytest.raises(BadImageError, match="key 'bytes' or 'path'"):
        mapper({"image": [{"data": b""}]})


@pytest.mark.parametrize("element", sorted({*ELEMENTS} - {*AMBIGUOUS}))
@pytest.mark.parametrize("on_error", ["raise", "nan"])
def test_a_single_row_is_no_batch(net, pixels, paths, element, on_error):
    mapper = make_mapper(net, on_error=on_error)
    image = ELEMENTS[element](pixels[0], paths[0])
    with pytest.raises(TypeError, match="not single rows: .*batched=True.*map_batches"):
        mapper({"image": image, "label": 0})


@pytest.mark.parametrize("image", [None, bytearray(b"x"), Path("x"), np.str_("x")])
def test_a_row_with_less_usual_images_is_no_batch(mapper, image):
    with pytest.raises(TypeError, match="not single rows: .*instead of the column"):
        mapper({"image": image})


def test_batches_leave_nothing_behind(mapper, pixels):
    before = pickle.dumps(mapper)
    mapper({"image": pixels})
    assert pickle.dumps(mapper) == before
    assert "CountingNet" in repr(mapper)


# -- Hugging Face datasets


DATASET = """
import sys
import datasets
from networks import CountingNet
from skdeepfeat import FeatureMapper, PretrainedFeatureExtractor

log, cache, *paths = sys.argv[1:]
datasets.disable_progress_bars()
data = datasets.Dataset.from_dict({"image": paths, "label": list(range(len(paths)))})
data.save_to_disk(cache)
data = datasets.load_from_disk(cache).cast_column("image", datasets.Image())
for extractor in (
    PretrainedFeatureExtractor(layer=1, image_size=32, cache=None),
    PretrainedFeatureExtractor(CountingNet(log), image_size=16, cache=None),
):
    print(datasets.fingerprint.Hasher.hash(FeatureMapper(extractor)))
"""


@pytest.fixture
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return pytest.importorskip("datasets")


@pytest.fixture
def dataset(offline, paths, tmp_path):
    data = offline.Dataset.from_dict({"image": paths, "label": range(N)})
    data.save_to_disk(str(tmp_path / "dataset"))
    data = offline.load_from_disk(str(tmp_path / "dataset"))
    offline.disable_progress_bars()
    yield data.cast_column("image", offline.Image())
    offline.enable_progress_bars()


FORMATS = ["PIL", "bytes and paths", "numpy", "pandas", "arrow", "torch", "polars"]


@pytest.mark.parametrize("kind", FORMATS)
def test_datasets(offline, dataset, mapper, net, expected, kind):
    data = dataset
    if kind != "PIL":
        data = data.cast_column("image", offline.Image(decode=False))
    if kind not in FORMATS[:2]:
        data = data.with_format(kind)
    done = data.map(mapper, batched=True, batch_size=4).with_format(None)
    assert set(done.column_names) == {"image", "label", "features"}
    if kind not in ("pandas", "polars"):  # there every column is written anew
        assert isinstance(done.features["image"], offline.Image)
    np.testing.assert_allclose(done["features"][:], expected, rtol=1e-5)
    assert done["label"][:] == list(range(N))


@pytest.mark.parametrize("kind", ["PIL", "bytes and paths"])
def test_datasets_without_batched(offline, dataset, net, kind):
    data = dataset.cast_column("image", offline.Image(decode=kind == "PIL"))
    mapper = make_mapper(net, on_error="nan")
    with pytest.raises(TypeError, match="not single rows: use datasets' map with"):
        data.map(mapper)


@pytest.mark.parametrize("kind", [None, "numpy"])
@pytest.mark.parametrize("shape", [(20, 24, 3), (None, 24, 3)])
def test_datasets_of_pixels(offline, mapper, pixels, expected, kind, shape):
    # datasets hands the bytes of such a column out as int64.
    features = offline.Features({"image": offline.Array3D(shape, "uint8")})
    data = offline.Dataset.from_dict({"image": list(pixels)}, features=features)
    done = data.with_format(kind).map(mapper, batched=True, batch_size=4)
    np.testing.assert_allclose(
        done.with_format(None)["features"][:], expected, rtol=1e-5
    )


def test_datasets_know_what_was_mapped(dataset, net):
    def run():
        # Converting the network, which "auto" does where very many images may come,
        # runs it a few times more.
        mapper = make_mapper(net, runtime="torch")
        return dataset.map(mapper, batched=True, batch_size=4)

    first = run()
    assert rows_counted(net.log) == N
    assert run()["features"][:] == first["features"][:]
    assert rows_counted(net.log) == N
    other = make_mapper(net, image_size=17, runtime="torch")
    dataset.map(other, batched=True)
    assert rows_counted(net.log) == 2 * N


@pytest.mark.slow
def test_datasets_know_it_the_next_day(offline, paths, tmp_path):
    log = tmp_path / "log"
    hashes = {
        subprocess.run(
            [sys.executable, "-c", DATASET, log, tmp_path / f"data{seed}", *paths],
            env={**os.environ, "PYTHONPATH": SUPPORT, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(2)
    }
    assert len(hashes) == 1
