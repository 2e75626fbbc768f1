"""The files that features are written to: Parquet, .npy and Zarr."""

import json
import os
import pathlib
import shutil

import numpy as np
import pandas as pd

from .._utils._atomic_file import write_atomically
from .._utils._filestat import stat_file
from .._utils._optional import import_optional
from .._utils._plain_file import open_plain

__all__ = ["FORMATS", "rows_at_once"]

# Bytes of features that are in memory at a time: while they are computed; while they
# are put together, when the writers hold copies (a row group of a Parquet file);
# and in one of the chunks of a Zarr array. With 2**25 for a row group, 20,000 images
# took 12 % more memory than 2,000.
_BLOCK = 2**25
_GROUP = 2**24
_ZARR_CHUNK = 2**22
_KEY = "skdeepfeat"


def rows_at_once(n_features):
    """Return how many rows are in memory at a time while they are computed."""
    return _rows_in(_BLOCK, n_features)


def _rows_in(n_bytes, n_features):
    return max(1, n_bytes // (4 * n_features))


class Parquet:
    """A column for the image and one for each feature.

    Measured with 20,000 rows of 1,280 features, two cores, row groups of 6,500, without
    compression: named columns take 1.2 s to write, 0.6 s to read with pyarrow, 0.7 to
    1.8 s with pandas, 0.3 s with polars; one column of fixed-size lists 0.5, 0.4, 0.5
    and 0.7 s, and then pandas holds an object column that has to be stacked before
    anything can be fitted to it. The files are equally large. Named columns are what
    scikit-learn takes, so these are written. Groups of 2,000 rows are read at
    half to a quarter of the speed.
    """

    copies_rows = True

    def __init__(self):
        self._arrow = import_optional(
            "pyarrow", extra="parquet", purpose="Writing .parquet files"
        )
        self._parquet = import_optional(
            "pyarrow.parquet", extra="parquet", purpose="Writing .parquet files"
        )

    def is_in_the_way(self, path):
        """Return whether what is there, if anything, is not to be replaced."""
        return path.exists() and not path.is_file()

    def read_record(self, path):
        """Return what `assemble` noted in a file, None if it is not one of ours."""
        try:
            metadata = self._parquet.read_schema(path).metadata or {}
            return json.loads(metadata[_KEY.encode()])
        # ArrowInvalid is a ValueError.
        except (OSError, ValueError, KeyError, RecursionError):
            return None

    def assemble(self, partial, names, images, record):
        """Write the rows of `partial` to a file in its folder and return its path.

        Parameters
        ----------
        partial : Partial
        names : sequence of str
            Of the features.
        images : sequence of str or None, or None
            The paths of the images; None if they have none, and are numbered.
        record : dict of JSON types
        """
        path = partial.folder / "assembled.parquet"
        schema = self._schema(names, images is not None, record)
        n_rows, n_features = partial.shape
        size = _rows_in(_GROUP, n_features)
        with (
            open_plain(path, "wb") as file,
            # Neither dictionaries nor statistics say anything of such numbers, and
            # they take more time than the rest. Of 5,000 x 1,280 real features, 26 MB,
            # snappy leaves 14 (many are zero), zstd 12 at half the speed.
            self._parquet.ParquetWriter(
                file,
                schema,
                compression="snappy",
                use_dictionary=False,
                write_statistics=["image"],
            ) as writer,
        ):
            for start in range(0, n_rows, size):
                rows = partial.read(start, start + size)
                labels = (
                    np.arange(start, start + len(rows))
                    if images is None
                    else images[start : start + len(rows)]
                )
                columns = [self._arrow.array(labels, schema.field("image").type)]
                columns += map(self._arrow.array, np.ascontiguousarray(rows.T))
                del rows  # the columns hold a copy, and the writer makes another
                table = self._arrow.Table.from_arrays(columns, schema=schema)
                writer.write_table(table, row_group_size=size)
                del columns, table  # before the next ones are read
        _sync(path)
        return path

    def _schema(self, names, has_paths, record):
        arrow = self._arrow
        index = pd.Index([], dtype="object" if has_paths else "int64", name="image")
        frame = pd.DataFrame(
            np.empty((0, len(names)), np.float32), columns=list(names), index=index
        )
        # With pandas' own notes, `pd.read_parquet` makes `image` the index, and what
        # is left is what an estimator can be fitted to.
        metadata = dict(arrow.Schema.from_pandas(frame).metadata)
        metadata[_KEY.encode()] = json.dumps(record).encode()
        image = arrow.field("image", arrow.string() if has_paths else arrow.int64())
        features = [arrow.field(name, arrow.float32()) for name in names]
        return arrow.schema([image, *features], metadata=metadata)

    def install(self, assembled, path, names, record):
        """Put an assembled file in its place, in the place of an older one."""
        os.replace(assembled, path)


class Npy:
    """The rows as numpy writes them; what they are stands in a file beside it."""

    copies_rows = False

    def is_in_the_way(self, path):
        """Return whether what is there, if anything, is not to be replaced."""
        notes = _notes(path)
        return (path.exists() and not path.is_file()) or (
            os.path.lexists(notes)
            and not isinstance(_read_notes(notes).get("job"), dict)
        )

    def read_record(self, path):
        """Return what `install` noted of this very file, or None."""
        record = _read_notes(_notes(path))
        return record if record.get("file") == _stamp(path) else None

    def assemble(self, partial, names, images, record):
        """Return the path of the rows, which are a whole file already."""
        _sync(partial.rows_path)
        return partial.rows_path

    def install(self, assembled, path, names, record):
        """Put an assembled file in its place, in the place of an older one."""
        notes = {**record, "feature_names": list(names), "file": _stamp(assembled)}
        # The notes first: as long as the file is not the one that they speak of, they
        # do not count.
        write_atomically(_notes(path), json.dumps(notes, indent=1).encode("utf-8"))
        os.replace(assembled, path)


class Zarr:
    """An array of shape (n_images, n_features) in a folder of its own."""

    copies_rows = True

    def __init__(self):
        self._zarr = import_optional(
            "zarr", extra="zarr", purpose="Writing .zarr stores"
        )

    def is_in_the_way(self, path):
        """Return whether what is there, if anything, is not to be replaced."""
        marks = ("zarr.json", ".zarray", ".zgroup")
        return path.exists() and not any((path / mark).is_file() for mark in marks)

    def read_record(self, path):
        """Return what `assemble` noted in a store, None if it is not one of ours.

        Nor if a chunk is missing, which zarr would read as fill values.
        """
        try:
            notes = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
            record = notes["attributes"][_KEY]
            n_rows = notes["shape"][0]
            chunk = notes["chunk_grid"]["configuration"]["chunk_shape"][0]
            n_chunks = -(-n_rows // chunk)
            # "c/ROW/COLUMN", and a chunk is as wide as the array.
            is_whole = all((path / f"c/{i}/0").is_file() for i in range(n_chunks))
        except (OSError, ValueError, KeyError, TypeError, IndexError, ArithmeticError):
            return None
        return record if is_whole else None

    def assemble(self, partial, names, images, record):
        """Write the rows of `partial` to a store in its folder and return its path."""
        path = partial.folder / "assembled.zarr"
        shutil.rmtree(path, ignore_errors=True)
        n_rows, n_features = partial.shape
        chunk = min(n_rows, _rows_in(_ZARR_CHUNK, n_features))
        array = self._zarr.create_array(
            store=str(path),
            shape=partial.shape,
            dtype="float32",
            # Every chunk is a file, also one of zeros or NaN, so that one that gets
            # lost is missed; in other readers it is no row of features at least.
            fill_value=np.nan,
            config={"write_empty_chunks": True},
            chunks=(chunk, n_features),
            zarr_format=3,
            dimension_names=("image", "feature"),
            attributes={"feature_names": list(names), _KEY: record},
        )
        size = max(1, _rows_in(_GROUP, n_features) // chunk) * chunk  # whole chunks
        for start in range(0, n_rows, size):
            rows = partial.read(start, start + size)
            array[start : start + len(rows)] = rows
        for file in path.rglob("*"):
            if file.is_file():
                _sync(file)
        return path

    def install(self, assembled, path, names, record):
        """Put an assembled store in its place, in the place of an older one."""
        aside = pathlib.Path(assembled).with_name("replaced.zarr")
        shutil.rmtree(aside, ignore_errors=True)
        if path.exists():
            os.replace(path, aside)
        os.replace(assembled, path)


FORMATS = {".parquet": Parquet, ".npy": Npy, ".zarr": Zarr}


def _notes(path):
    return path.with_name(f"{path.name}.json")


def _read_notes(path):
    try:
        with open_plain(path) as file:
            notes = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _stamp(path):
    """Return what tells a file from one that was written later."""
    file = stat_file(path)
    return [file.size, file.mtime_ns]


def _sync(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
