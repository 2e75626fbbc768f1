"""Everything that X can be, and the errors for everything else."""

import array
import collections
import io
import os
import pathlib
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from PIL import Image
from sklearn.utils import Bunch

from skdeepfeat._utils._digests import digest_bytes, digest_pixels
from skdeepfeat.exceptions import BadImageError
from skdeepfeat.images import make_image_source


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Return the paths of five image files that all differ."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.integers(0, 256, (6 + i, 7, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(5)]


def as_objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def contents(paths):
    return [pathlib.Path(path).read_bytes() for path in paths]


ARROW_STR = pd.ArrowDtype(pa.string())
ARROW_BYTES = pd.ArrowDtype(pa.binary())

PATH_CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "deque": collections.deque,
    "list of Path": lambda paths: [pathlib.Path(path) for path in paths],
    "list of np.str_": lambda paths: [np.str_(path) for path in paths],
    "object array": lambda paths: np.array(paths, dtype=object),
    "object array of Path": lambda paths: np.array([pathlib.Path(p) for p in paths]),
    "str array": np.array,
    "StringDType array": lambda paths: np.array(paths, dtype=np.dtypes.StringDType()),
    "(n, 1) str array": lambda paths: np.array(paths)[:, None],
    "(n, 1) object array": lambda paths: np.array(paths, dtype=object)[:, None],
    "(n, 1) list": lambda paths: [[path] for path in paths],
    "pandas Series": pd.Series,
    "pandas Series, own index": lambda paths: pd.Series(paths, index=[9, 9, 1, 0, 4]),
    "pandas object Series": lambda paths: pd.Series(paths, dtype=object),
    "pandas arrow Series": lambda paths: pd.Series(paths, dtype=ARROW_STR),
    "pandas Categorical": lambda paths: pd.Series(paths, dtype="category"),
    "pandas Index": pd.Index,
    "pandas frame": lambda paths: pd.DataFrame({"path": paths}),
    "pandas categorical frame": lambda p: pd.DataFrame({"p": p}, dtype="category"),
    "polars Series": pl.Series,
    "polars categorical": lambda paths: pl.Series(paths, dtype=pl.Categorical),
    "polars frame": lambda paths: pl.DataFrame({"path": paths}),
    "polars object frame": lambda paths: pl.DataFrame(
        {"p": [pathlib.Path(p) for p in paths]}, schema={"p": pl.Object}
    ),
    "pyarrow array": pa.array,
    "pyarrow table": lambda paths: pa.table({"path": paths}),
}
BYTES_CONTAINERS = {
    "list": list,
    "list of bytearray": lambda data: [bytearray(one) for one in data],
    "list of memoryview": lambda data: [memoryview(one) for one in data],
    "object array": as_objects,
    "pandas Series": pd.Series,
    "pandas arrow Series": lambda data: pd.Series(data, dtype=ARROW_BYTES),
    "polars Series": pl.Series,
    "polars frame": lambda data: pl.DataFrame({"image": data}),
}


@pytest.mark.parametrize("name", ["column", "column_names", "to_list", "get_column"])
def test_columns_with_the_names_of_methods(name, paths):
    # A pandas frame has its columns as attributes.
    assert len(make_image_source(pd.DataFrame({name: paths}))) == 5
    with pytest.raises(ValueError, match=rf"Got 2 columns: path, {name}"):
        make_image_source(pd.DataFrame({"path": paths, name: paths}))


@pytest.mark.parametrize("container", PATH_CONTAINERS)
def test_paths_in_any_container(container, paths):
    source = make_image_source(PATH_CONTAINERS[container](paths))
    assert len(source) == 5
    assert source.digests() == ([digest_bytes(data) for data in contents(paths)], {})
    for i, path in enumerate(paths):
        assert source.describe(i) == path
        np.testing.assert_array_equal(source.pixels(i), np.asarray(Image.open(path)))


@pytest.mark.parametrize("container", BYTES_CONTAINERS)
def test_encoded_bytes_in_any_container(container, paths):
    source = make_image_source(BYTES_CONTAINERS[container](contents(paths)))
    assert source.digests() == ([digest_bytes(data) for data in contents(paths)], {})
    assert source.describe(2) == "encoded bytes"
    for i, path in enumerate(paths):
        np.testing.assert_array_equal(source.pixels(i), np.asarray(Image.open(path)))


def test_strided_memoryviews(paths):
    data = contents(paths)[0]
    doubled = bytes(b for pair in zip(data, data, strict=True) for b in pair)
    source = make_image_source([memoryview(doubled)[::2]])
    assert source.digests() == ([digest_bytes(data)], {})
    assert source.pixels(0).shape == (6, 7, 3)


IMAGE_LISTS = {
    "list of arrays": list,
    "tuple of arrays": tuple,
    "object array": as_objects,
    "(n, 1) object array": lambda images: as_objects(images)[:, None],
    "pandas Series": lambda images: pd.Series(list(images)),
    "pandas frame": lambda images: pd.DataFrame({"image": list(images)}),
    "polars object Series": lambda images: pl.Series(list(images), dtype=pl.Object),
    "PIL images": lambda images: [Image.fromarray(image) for image in images],
    "object array of PIL": lambda x: as_objects([Image.fromarray(one) for one in x]),
    "floats": lambda images: [image / 255 for image in images],
    "tensors": lambda images: [
        torch.tensor(x.copy()).movedim(-1, 0) if x.ndim == 3 else torch.tensor(x)
        for x in images
    ],
    "float tensors": lambda images: [
        torch.tensor(x / 255, dtype=torch.float32, requires_grad=True).movedim(-1, 0)
        if x.ndim == 3
        else torch.tensor(x / 255, dtype=torch.bfloat16)
        for x in images
    ],
    "what has __array__": lambda images: [HasArray(image) for image in images],
}


class HasArray:
    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize("container", IMAGE_LISTS)
def test_images_of_any_size_in_any_container(container, rgb, gray):
    images = [rgb, gray, rgb[:5], gray[:, :2], rgb[::-1]]
    source = make_image_source(IMAGE_LISTS[container](images))
    digests, failures = source.digests()
    assert failures == {}
    assert digests == [digest_pixels(image) for image in images]
    for i, image in enumerate(images):
        np.testing.assert_array_equal(source.pixels(i), image)


STACKS = {
    "uint8": lambda X: X,
    "float64": lambda X: X / 255,
    "float32": lambda X: (X / 255).astype(np.float32),
    "uint16": lambda X: X.astype(np.uint16) * 257,
    "Fortran order": np.asfortranarray,
    "reversed view": lambda X: X[::-1].copy()[::-1],
    "uint8 tensor": lambda X: to_tensor(X),
    "float tensor": lambda X: to_tensor(X) / 255,
    "bfloat16-free half tensor": lambda X: (to_tensor(X) / 255).half(),
    "tensor with gradient": lambda X: (to_tensor(X) / 255).requires_grad_(),
    "has __array__": HasArray,
    "list": list,
}


def to_tensor(X):
    tensor = torch.from_numpy(np.ascontiguousarray(X))
    return tensor.movedim(-1, 1) if X.ndim == 4 else tensor


@pytest.mark.parametrize("has_channels", [False, True])
@pytest.mark.parametrize("container", STACKS)
def test_stacks(container, has_channels, monkeypatch):
    shape = (30, 9, 8, 3) if has_channels else (30, 9, 8)
    X = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    source = make_image_source(STACKS[container](X))
    assert len(source) == 30
    for n_cores in (1, 3):
        monkeypatch.setattr("joblib.cpu_count", lambda n=n_cores: n)
        digests, failures = source.digests()
        assert failures == {}
        assert digests == [digest_pixels(image) for image in X]
    np.testing.assert_array_equal(source.pixels(29), X[29])
    assert source.pixels(3).flags.c_contiguous
    assert "of shape" in source.describe(0)


def test_a_stack_is_read_in_blocks(monkeypatch):
    from skdeepfeat.images import _array_source

    X = np.random.default_rng(0).integers(0, 256, (11, 4, 4, 3), dtype=np.uint8)
    monkeypatch.setattr(_array_source, "_BLOCK", 4 * 48)  # 4, 4 and 3 images
    for n_cores in (1, 2):
        monkeypatch.setattr("joblib.cpu_count", lambda n=n_cores: n)
        digests, _ = make_image_source(X / 255).digests()
        assert digests == [digest_pixels(image) for image in X]


def test_a_stack_is_never_copied():
    X = np.zeros((4, 5, 6, 3), dtype=np.uint8)
    source = make_image_source(X)
    before, _ = source.digests()
    X[2] = 9
    after, _ = source.digests()
    assert [a == b for a, b in zip(before, after, strict=True)] == [
        True,
        True,
        False,
        True,
    ]
    assert np.shares_memory(source.pixels(0), X)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tensors_on_a_gpu(rgb):
    X = to_tensor(np.stack([rgb, rgb[::-1]]))
    expected = make_image_source(X).digests()
    assert make_image_source(X.cuda()).digests() == expected
    assert make_image_source([one.cuda() for one in X]).digests() == expected


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 1), (3, 4, 3), (3, 4, 4)])
def test_flat_rows(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, *shape), dtype=np.uint8)
    expected = make_image_source(images[..., None] if len(shape) == 2 else images)
    flat = images.reshape(6, -1)
    frame = pd.DataFrame(flat / 255)
    for X in (
        flat,
        flat / 255,
        [list(row) for row in flat / 255],
        list(flat),
        frame,
        frame.astype("Float64"),
        pl.DataFrame(flat, schema=[f"p{i}" for i in range(flat.shape[1])]),
        torch.from_numpy(flat),
        (flat / 255).astype(object),
    ):
        source = make_image_source(X, flat_image_shape=shape)
        assert source.digests() == expected.digests()
        np.testing.assert_array_equal(source.pixels(5), expected.pixels(5))


def test_flat_rows_of_one_pixel():
    X = np.array([[0.0], [1.0], [0.5]])
    for rows in (X, pd.DataFrame(X), X.tolist()):
        source = make_image_source(rows, flat_image_shape=(1, 1))
        assert [source.pixels(i).item() for i in range(3)] == [0, 255, 128]


def test_image_shape_is_ignored_where_images_have_their_own(paths, rgb):
    for X in (paths, [rgb], rgb[None], pd.DataFrame({"path": paths})):
        source = make_image_source(X, flat_image_shape=(8, 8))
        assert source.digests() == make_image_source(X).digests()


def test_kinds_may_be_mixed_and_rows_never_shift(paths, rgb, gray, tmp_path):
    data = contents(paths)
    X = [
        paths[0],
        None,
        rgb,
        str(tmp_path / "missing.png"),
        Image.fromarray(gray),
        float("nan"),
        data[1],
        rgb * 2.0,
        torch.from_numpy(gray),
        pd.NA,
        pathlib.Path(paths[2]),
        3.5,
        np.float64("nan"),
        "http://example.org/a.jpg",
        pd.NaT,
        rgb / 255,
        [1, 2],
        b"no image",
    ]
    source = make_image_source(X)
    digests, failures = source.digests()
    expected = {
        0: digest_bytes(data[0]),
        2: digest_pixels(rgb),
        4: digest_pixels(gray),
        6: digest_bytes(data[1]),
        8: digest_pixels(gray),
        10: digest_bytes(data[2]),
        15: digest_pixels(rgb),
        17: digest_bytes(b"no image"),
    }
    assert {i: d for i, d in enumerate(digests) if d is not None} == expected
    assert list(failures) == [1, 3, 5, 7, 9, 11, 12, 13, 14, 16]
    for row, error in failures.items():
        assert error.index == row
        assert error.origin == source.describe(row)
        with pytest.raises(BadImageError) as caught:
            source.pixels(row)
        assert caught.value.args == error.args
    for row in (1, 5, 9, 12, 14):
        assert failures[row].cause == "missing value"
    assert str(failures[1]) == "index 1, None: missing value"
    assert "a float" in failures[11].cause
    assert "a list" in failures[16].cause


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_missing_values_in_frames(missing, paths):
    values = [paths[0], missing, paths[2]]
    for X in (pd.Series(values), pd.DataFrame({"path": values}), [missing] * 3):
        digests, failures = make_image_source(X).digests()
        assert [failures[row].cause for row in failures][:1] == ["missing value"]
        assert [d is None for d in digests].count(False) in (0, 2)
    digests, failures = make_image_source(pl.Series([paths[0], None])).digests()
    assert list(failures) == [1]


@pytest.mark.parametrize(
    "X",
    [
        [],
        (),
        np.array([]),
        np.array([], dtype=object),
        np.empty((0, 8, 8, 3), dtype=np.uint8),
        np.empty((0, 5)),
        pd.Series([], dtype=str),
        pd.DataFrame({"path": []}),
        pl.Series([], dtype=pl.String),
        torch.empty(0, 3, 4, 4),
    ],
    ids=repr,
)
def test_nothing_is_zero_rows(X):
    source = make_image_source(X)
    assert len(source) == 0
    assert source.digests() == ([], {})


TYPE_ERRORS = {
    "str": (lambda: "a.jpg", r"single path: use \[X\]"),
    "Path": (lambda: pathlib.Path("a.jpg"), r"single path: use \[X\]"),
    "bytes": (lambda: b"abc", r"single encoded image: use \[X\]"),
    "PIL": (lambda: Image.new("L", (2, 2)), r"single PIL image: use \[X\]"),
    "None": (lambda: None, "list of paths"),
    "int": (lambda: 3, "list of paths"),
    "object": (object, "list of paths"),
    "generator": (lambda: (p for p in ["a.jpg"]), r"use list\(X\)"),
    "map": (lambda: map(str, [1]), r"use list\(X\)"),
    "zip": (lambda: zip([1], strict=True), r"use list\(X\)"),
    "dict": (lambda: {"a": "a.jpg"}, r"list\(X.values\(\)\)"),
    "Bunch": (lambda: Bunch(data=["a.jpg"], target=[0]), r"use X\.data\."),
    "set": (lambda: {"a.jpg"}, r"sorted\(X\)"),
    "sparse matrix": (lambda: scipy.sparse.eye(3, format="csr"), r"X.toarray\(\)"),
    "sparse array": (lambda: scipy.sparse.csr_array(np.eye(3)), r"X.toarray\(\)"),
    "sparse tensor": (lambda: torch.eye(3).to_sparse(), r"X.to_dense\(\)"),
    "masked": (lambda: np.ma.masked_equal([[1, 2]], 1), r"X.filled\(0\)"),
    "lazy frame": (lambda: pl.LazyFrame({"a": ["b"]}), r"X.collect\(\)"),
    "bytes array": (lambda: np.array([b"ab\0", b"c"]), "dtype=object"),
    "datetimes": (lambda: np.array(["2020-01-01"], dtype="M8[D]"), "dtype datetime64"),
    "complex": (lambda: np.zeros((2, 3, 3), dtype=complex), "dtype complex128"),
    "numbers": (lambda: [1, 2, 3], "sequence of numbers"),
    "range": (lambda: range(3), "sequence of numbers"),
    "array.array": (lambda: array.array("d", [1.0]), "sequence of numbers|list of"),
    "number Series": (lambda: pd.Series([1.5, np.nan]), "sequence of numbers"),
    "number column": (lambda: pd.DataFrame({"a": [1, 2]}), "sequence of numbers"),
    "ragged lists": (lambda: [[1, 2], [3]], "np.asarray"),
    "lists of strings": (lambda: [["a", "b"], ["c", "d"]], "np.asarray"),
}


@pytest.mark.parametrize("case", TYPE_ERRORS)
def test_what_is_not_a_collection_of_images(case):
    make, words = TYPE_ERRORS[case]
    with pytest.raises(TypeError, match=words):
        make_image_source(make())


def ones(*shape, dtype=np.uint8):
    return np.ones(shape, dtype=dtype)


VALUE_ERRORS = {
    "one RGB image": (lambda: ones(8, 9, 3), r"X\[np.newaxis\]"),
    "one gray image": (lambda: ones(8, 9), r"flat_image_shape=.*X\[np.newaxis\]"),
    "one row": (lambda: ones(8), "holds no images"),
    "a number": (lambda: np.array(3.0), "holds no images"),
    "channels first": (lambda: ones(5, 3, 8, 9), r"X.transpose\(0, 2, 3, 1\)"),
    "seven channels": (lambda: ones(5, 8, 9, 7), "1, 3 or 4 channels"),
    "5-D": (lambda: ones(2, 5, 8, 9, 3), r"\(2, 5, 8, 9, 3\)"),
    "no pixels": (lambda: ones(5, 0, 9, 3), "no pixels"),
    "tensor, channels last": (
        lambda: torch.ones(5, 8, 9, 3, dtype=torch.uint8),
        r"X.permute\(0, 3, 1, 2\)",
    ),
    "tensor, seven channels": (lambda: torch.ones(5, 7, 8, 9), "1, 3 or 4 channels"),
    "tensor, one RGB image": (lambda: torch.ones(8, 9, 3), r"X.permute\(2, 0, 1\)"),
    "tensor, 2-D": (lambda: torch.ones(8, 9), "flat_image_shape"),
    "tensor, 1-D": (lambda: torch.ones(8), "reshape"),
    "tensor, no pixels": (lambda: torch.ones(2, 3, 0, 4), "no pixels"),
    "int64": (lambda: ones(2, 8, 9, 3, dtype=int), r"X.astype\(np.uint8\).*1 to 1"),
    "0 to 255 floats": (lambda: ones(2, 8, 9, 3) * 255.0, r"X / 255.*from 255 to 255"),
    "0 to 16 floats": (lambda: ones(2, 8, 9) * 16.0, r"X / X.max\(\).*16"),
    "NaN": (lambda: ones(2, 8, 9) * np.nan, "finite"),
    "float tensor": (lambda: torch.ones(2, 3, 8, 9) * 255, "X / 255"),
    "int tensor": (lambda: torch.ones(2, 3, 8, 9).int(), r"X.astype\(np.uint8\)"),
    "n-D object array": (
        lambda: np.array([ones(4, 4, 3), ones(4, 4, 3)], dtype=object),
        r"X.astype\(np.uint8\), or a list of arrays",
    ),
    "string columns": (lambda: np.array([["a", "b"]]), r"X\[:, 0\]"),
    "pandas frame": (
        lambda: pd.DataFrame({"a": ["x"], "b": ["y"]}),
        "X.*2 columns: a, b",
    ),
    "polars frame": (lambda: pl.DataFrame({"a": ["x"], "b": ["y"]}), "2 columns: a, b"),
    "empty frame": (lambda: pd.DataFrame(index=[1, 2]), "Got 0 columns"),
}


@pytest.mark.parametrize("case", VALUE_ERRORS)
def test_what_holds_no_images(case):
    make, words = VALUE_ERRORS[case]
    with pytest.raises(ValueError, match=words) as caught:
        make_image_source(make())
    assert not isinstance(caught.value, BadImageError)


def test_paths_as_bytes_are_told_from_images(paths):
    _, failures = make_image_source([os.fsencode(path) for path in paths]).digests()
    assert "os.fsdecode" in failures[0].cause and len(failures) == len(paths)


def test_the_gaps_of_a_masked_image_are_not_filled_in():
    masked = np.ma.masked_array(np.zeros((4, 5), np.uint8), True)
    _, failures = make_image_source([np.zeros((4, 5), np.uint8), masked]).digests()
    assert "image.filled(0)" in failures[1].cause and len(failures) == 1


@pytest.mark.parametrize("block", [1, 10**6])
def test_one_bad_value_anywhere_in_a_float_stack_is_found(block, monkeypatch):
    from skdeepfeat.images import _array_source

    monkeypatch.setattr(_array_source, "_BLOCK", block)
    for value, words in ((np.nan, "NaN"), (1.5, "to 1.5"), (-0.25, "from -0.25")):
        for row in (0, 3, 6):
            X = np.full((7, 3, 5), 0.5)
            X[row, 1, 2] = value
            with pytest.raises(ValueError, match=words):
                make_image_source(X)


def test_wrong_number_of_columns():
    for X in (np.zeros((3, 63)), torch.zeros(3, 63), pd.DataFrame(np.zeros((3, 63)))):
        with pytest.raises(ValueError, match=r"8 \* 8 = 64 columns. Got 63"):
            make_image_source(X, flat_image_shape=(8, 8))


def test_columns_that_are_not_numbers():
    X = pd.DataFrame({"a": [0.5, 0.5], "b": ["x", "y"]})
    with pytest.raises(TypeError, match="numbers only"):
        make_image_source(X, flat_image_shape=(1, 2))


@pytest.mark.parametrize(
    "flat_image_shape",
    [8, "88", (8,), (8, 8, 3, 1), (8.0, 8), (0, 8), (8, 8, 5)],
    ids=repr,
)
def test_image_shape_is_checked(flat_image_shape):
    with pytest.raises(ValueError, match="The 'flat_image_shape' parameter"):
        make_image_source(np.zeros((2, 64)), flat_image_shape=flat_image_shape)


@pytest.mark.parametrize("max_pixels", [0, -1, 1.5, "many", True])
def test_max_pixels_is_checked(max_pixels):
    with pytest.raises(ValueError, match="The 'max_pixels' parameter"):
        make_image_source([], max_pixels=max_pixels)


def test_max_pixels_holds_for_files_bytes_and_pil_images(paths):
    X = [paths[0], contents(paths)[0], Image.open(io.BytesIO(contents(paths)[0]))]
    source = make_image_source(X, max_pixels=41)
    for row in range(3):
        with pytest.raises(BadImageError, match="7 x 6 pixels.*max_pixels=41"):
            source.pixels(row)
    for max_pixels in (42, None):
        assert make_image_source(X, max_pixels=max_pixels).pixels(0).shape == (6, 7, 3)


def test_single_images_of_wrong_layout(rgb):
    X = [np.moveaxis(rgb, -1, 0), torch.from_numpy(rgb), torch.zeros(2, 3, 4, 4)]
    _, failures = make_image_source(X).digests()
    assert "image.transpose(1, 2, 0)" in failures[0].cause
    assert "image.permute(2, 0, 1)" in failures[1].cause
    assert "(2, 3, 4, 4)" in failures[2].cause


def test_pixels_from_eight_threads_are_those_of_one(paths, rgb):
    X = [*paths, *contents(paths), rgb, *(Image.open(path) for path in paths)]
    X = X * 4  # the same PIL objects in several rows
    serial = [make_image_source(X).pixels(i) for i in range(len(X))]
    source = make_image_source([*X[:11], *(Image.open(p) for p in paths), *X[16:]])
    barrier = threading.Barrier(8)

    def work(start):
        barrier.wait()
        return {i: source.pixels(i) for i in (*range(start, len(X)), *range(start))}

    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(work, range(8)):
            for i, expected in enumerate(serial):
                np.testing.assert_array_equal(result[i], expected)


def test_real_photographs(shared_data):
    files = sorted((shared_data / "imagenet_sample").glob("*.JPEG"))[:10]
    source = make_image_source(files)
    digests, failures = source.digests()
    assert failures == {}
    assert len(set(digests)) == 10
    for i, path in enumerate(files):
        expected = np.asarray(Image.open(path).convert("RGB"))
        pixels = source.pixels(i)
        if pixels.ndim == 2:
            pixels = np.dstack([pixels] * 3)
        np.testing.assert_array_equal(pixels, expected)


def turned_jpeg():
    """Return a PIL image, not loaded, that its EXIF data turn by a quarter."""
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    return Image.open(buffer)


def part_source(kind, paths):
    """Return X of five images, for each way in which a source keeps its images."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    pictures = [Image.open(io.BytesIO(data)) for data in contents(paths)[1:]]
    return {
        "paths": paths,
        "bytes": contents(paths),
        "PIL": [turned_jpeg(), *pictures],
        "mixed": [paths[0], contents(paths)[1], pixels[2], pictures[0], None],
        "array": pixels,
        "float array": pixels / 255.0,
        "tensor": torch.from_numpy(pixels).movedim(-1, 1),
        "tensor of gradients": torch.rand(5, 3, 6, 7).requires_grad_(),
    }[kind]


PART_KINDS = [
    "paths",
    "bytes",
    "PIL",
    "mixed",
    "array",
    "float array",
    "tensor",
    "tensor of gradients",
]


@pytest.mark.parametrize("kind", PART_KINDS)
@pytest.mark.parametrize("rows", [[0], [1, 2, 3], [4, 0, 3], []])
def test_part_is_the_same_images_after_pickling(paths, kind, rows):
    source = make_image_source(part_source(kind, paths))
    digests, _ = source.digests()
    part = pickle.loads(pickle.dumps(source.part(np.array(rows, int))))
    assert len(part) == len(rows)
    for i, row in enumerate(rows):
        if digests[row] is None:
            with pytest.raises(BadImageError, match="missing value"):
                part.pixels(i)
        else:
            np.testing.assert_array_equal(part.pixels(i), source.pixels(row))
        if kind != "PIL":  # they are loaded when they are pickled
            assert part.describe(i) == source.describe(row)
    assert part.digests()[0] == [digests[row] for row in rows]


@pytest.mark.parametrize("kind", ["array", "float array", "tensor", "bytes"])
def test_part_does_not_carry_the_other_rows(paths, kind):
    X = part_source(kind, paths)
    numbers = np.tile(np.arange(5), 200)
    # Objects of their own, because a pickle keeps one only once.
    many = [X[i] + b" " for i in numbers] if kind == "bytes" else X[numbers]
    source = make_image_source(many)
    source.digests()
    for rows in [np.arange(3, 6), np.array([7, 2, 5])]:
        assert len(pickle.dumps(source.part(rows))) < len(pickle.dumps(source)) / 50


def test_part_reads_the_files_of_where_it_was_made(paths, tmp_path, monkeypatch):
    folder, name = os.path.split(paths[2])
    monkeypatch.chdir(folder)
    source = make_image_source(["0.png", name])
    expected = source.pixels(1)
    part = source.part(np.array([1]))
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(part.part(np.array([0])).pixels(0), expected)
    assert part.describe(0) == name


def test_part_knows_what_the_file_was(paths, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(contents(paths)[0])
    source = make_image_source([paths[1], str(path)])
    source.digests()
    part = source.part(np.array([1]))
    path.write_bytes(contents(paths)[3])
    with pytest.raises(BadImageError, match="index 0, .*changed while"):
        part.pixels(0)


def test_paths_are_those_given(paths):
    source = make_image_source(
        [paths[0], pathlib.Path(paths[1]), contents(paths)[2], None]
    )
    assert [source.path(i) for i in range(4)] == [*paths[:2], None, None]
    assert source.part(np.array([1])).path(0) == paths[1]
    assert make_image_source(np.zeros((2, 5, 5), np.uint8)).path(1) is None
