"""Series and one-column frames of every type that can hold paths or bytes."""

import pathlib

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image

from skdeepfeat.images import make_image_source

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
N = 3


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    for i in range(N):
        pixels = np.full((8, 8, 3), 20 * i, np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(N)]


def read(paths):
    return [pathlib.Path(path).read_bytes() for path in paths]


def structs(paths):
    return [{"bytes": data, "path": None} for data in read(paths)]


def narwhals_frame(paths):
    narwhals = pytest.importorskip("narwhals", reason="scikit-learn 1.9 brings it")
    return narwhals.from_native(pl.DataFrame({"a": paths}))


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PANDAS = {
    "str": None,
    "object": object,
    "string": "string",
    "string[pyarrow]": "string[pyarrow]",
    "category": "category",
    "arrow string": pd.ArrowDtype(pa.string()),
    "arrow large string": pd.ArrowDtype(pa.large_string()),
    "arrow dictionary": pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string())),
}
OTHERS = {
    "pandas arrow binary": lambda p: pd.Series(
        read(p), dtype=pd.ArrowDtype(pa.binary())
    ),
    "pandas arrow struct": lambda p: pd.Series(structs(p), dtype=pd.ArrowDtype(STRUCT)),
    "pandas index": pd.Index,
    "pandas multi-index": lambda p: pd.DataFrame({("a", "b"): p}),
    "polars": pl.Series,
    "polars binary": lambda p: pl.Series(read(p)),
    "polars categorical": lambda p: pl.Series(p, dtype=pl.Categorical),
    "polars enum": lambda p: pl.Series(p, dtype=pl.Enum(p)),
    "polars object": lambda p: pl.Series(map(pathlib.Path, p), dtype=pl.Object),
    "polars struct": lambda p: pl.Series(structs(p)),
    "polars frame": lambda p: pl.DataFrame({"a": pl.Series(p, dtype=pl.Categorical)}),
    "arrow": pa.array,
    "arrow chunks": lambda p: pa.chunked_array([p[:1], p[1:]]),
    "arrow dictionary": lambda p: pa.array(p).dictionary_encode(),
    "arrow view": lambda p: pa.array(p, type=pa.string_view()),
    "arrow table": lambda p: pa.table({"a": p}),
    "numpy strings": lambda p: np.array(p, dtype=np.dtypes.StringDType()),
    "narwhals frame": narwhals_frame,
}


def check(X, paths):
    digests, failures = make_image_source(X).digests()
    wanted, _ = make_image_source(paths).digests()
    assert digests[:N] == wanted
    return failures


@pytest.mark.parametrize("dtype", PANDAS)
def test_pandas(paths, dtype):
    series = pd.Series(paths, dtype="object").astype(PANDAS[dtype] or "str")
    assert check(series, paths) == {}
    assert check(series.to_frame("photo"), paths) == {}
    # Any index.
    assert check(series.iloc[::-1], paths[::-1]) == {}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds(paths, kind):
    assert check(OTHERS[kind](paths), paths) == {}


@pytest.mark.parametrize("dtype", ["str", "string", "category", "arrow string"])
def test_missing_values(paths, dtype):
    # Not by `astype`, with which pandas 2 turns None into text.
    series = pd.Series([*paths, None], dtype=PANDAS[dtype] or "str")
    assert "missing value" in str(check(series, paths)[N])


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_missing_values_of_polars(paths, dtype):
    series = pl.Series([*paths, None], dtype=dtype)
    assert "missing value" in str(check(series, paths)[N])
