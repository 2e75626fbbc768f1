"""The files that features are written to: Parquet, .npy and Zarr."""

import contextlib
import json
import os
import shutil

import numpy as np

from .._utils._filestat import stat_file
from .._utils._optional import import_optional
from .._utils._plain_file import open_plain, write_atomically
from ._partial_file import read_json

# Bytes of features that are in memory at a time: while they are computed; while the
# file is assembled, when the writers hold copies (a row group of a Parquet file); and
# in one chunk of a Zarr array.
_BLOCK = 2**25
_GROUP = 2**24
_ZARR_CHUNK = 2**22
_KEY = "skdeepfeat"


def indices_at_once(n_features):
    """Return for how many images features are computed at a time."""
    return _n_rows(_BLOCK, n_features)


def _n_rows(n_bytes, n_features):
    return max(1, n_bytes // (4 * n_features))


class _FileFormat:
    """What the formats have in common.

    Parameters
    ----------
    path : pathlib.Path
    """

    copies_rows = True  # from the intermediate results, which need space as well

    def __init__(self, path):
        self.path = path

    def is_in_the_way(self):
        """Return whether there is something that must not be replaced."""
        return self.path.exists() and not self.path.is_file()

    def install(self, assembled, names, record):
        """Move the assembled file to its path, replacing an older one."""
        with contextlib.suppress(OSError):  # mostly there is none
            shutil.copymode(self.path, assembled)
        os.replace(assembled, self.path)


class Parquet(_FileFormat):
    """A column for the image and one for each feature.

    Named columns are what scikit-learn takes. A single column of lists would be faster
    to read, but in pandas it would have to be stacked before anything can be fitted.
    """

    def __init__(self, path):
        super().__init__(path)
        purpose = "Writing .parquet files"
        self._arrow = import_optional("pyarrow", extra="parquet", purpose=purpose)
        self._parquet = import_optional(
            "pyarrow.parquet", extra="parquet", purpose=purpose
        )

    def read_record(self):
        """Return what `assemble` noted in the file, or None if it is not ours."""
        try:
            metadata = self._parquet.read_schema(self.path).metadata or {}
            return json.loads(metadata[_KEY.encode()])
        # ArrowInvalid is a ValueError.
        except (OSError, ValueError, KeyError, RecursionError):
            return None

    def assemble(self, partial, names, images, record):
        """Write the features to a file in the folder of `partial`; return its path.

        Parameters
        ----------
        partial : Partial
        names : sequence of str
            Names of the features.
        images : sequence of str or None, or None
            The paths of the images. None if they have no paths and are numbered.
        record : dict of JSON types
        """
        path = partial.folder / "assembled.parquet"
        schema = self._schema(names, images is not None, record)
        n_rows, n_features = partial.shape
        size = _n_rows(_GROUP, n_features)
        with (
            open_plain(path, "wb") as file,
            # Dictionaries and statistics would take more time than the rest, and do
            # not help with such numbers. snappy makes use of the many zeros. zstd
            # saves a little more at half the speed.
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
        import pandas as pd  # here, because features do not need it

        arrow = self._arrow
        index = pd.Index([], dtype="object" if has_paths else "int64", name="image")
        frame = pd.DataFrame(
            np.empty((0, len(names)), np.float32), columns=list(names), index=index
        )
        # With the metadata of pandas, `pd.read_parquet` makes `image` the index, so
        # that an estimator can be fitted to the remaining columns.
        metadata = dict(arrow.Schema.from_pandas(frame).metadata)
        metadata[_KEY.encode()] = json.dumps(record).encode()
        image = arrow.field("image", arrow.string() if has_paths else arrow.int64())
        features = [arrow.field(name, arrow.float32()) for name in names]
        return arrow.schema([image, *features], metadata=metadata)


class Npy(_FileFormat):
    """The features as numpy writes them, with a file of notes next to them."""

    copies_rows = False

    def __init__(self, path):
        super().__init__(path)
        self._notes_path = path.with_name(f"{path.name}.json")

    def is_in_the_way(self):
        """Return whether there is something that must not be replaced."""
        return super().is_in_the_way() or (
            os.path.lexists(self._notes_path)
            and not isinstance(self._read_notes().get("job"), dict)
        )

    def read_record(self):
        """Return what `install` noted about this very file, or None."""
        record = self._read_notes()
        return record if record.get("file") == _stamp(self.path) else None

    def assemble(self, partial, names, images, record):
        """Return the path of the intermediate results, which are a complete file."""
        _sync(partial.rows_path)
        return partial.rows_path

    def install(self, assembled, names, record):
        """Move the assembled file to its path, replacing an older one."""
        notes = {**record, "feature_names": list(names), "file": _stamp(assembled)}
        # The notes first: they do not count until they match the file.
        write_atomically(self._notes_path, json.dumps(notes, indent=1).encode("utf-8"))
        super().install(assembled, names, record)

    def _read_notes(self):
        notes = read_json(self._notes_path)
        return notes if isinstance(notes, dict) else {}


class Zarr(_FileFormat):
    """An array of shape (n_images, n_features) in a folder of its own."""

    def __init__(self, path):
        super().__init__(path)
        self._zarr = import_optional(
            "zarr", extra="zarr", purpose="Writing .zarr stores"
        )

    def is_in_the_way(self):
        """Return whether there is something that must not be replaced."""
        marks = ("zarr.json", ".zarray", ".zgroup")
        return self.path.exists() and not any(
            (self.path / mark).is_file() for mark in marks
        )

    def read_record(self):
        """Return what `assemble` noted in the store, or None if it is not ours.

        A store with a missing chunk, which zarr would read as fill values, is not.
        """
        try:
            array = self._zarr.open_array(self.path, mode="r")
            # Not `nchunks_initialized`, which lists all chunks that the file claims.
            # They are in "c/ROW/COLUMN", and as wide as the array.
            is_whole = all(
                (self.path / f"c/{i}/0").is_file() for i in range(array.nchunks)
            )
            return array.attrs[_KEY] if is_whole else None
        except Exception:  # zarr checks little of what it reads
            return None

    def assemble(self, partial, names, images, record):
        """Write the features to a store in the folder of `partial`; return its path."""
        path = partial.folder / "assembled.zarr"
        shutil.rmtree(path, ignore_errors=True)
        n_rows, n_features = partial.shape
        chunk = min(n_rows, _n_rows(_ZARR_CHUNK, n_features))
        array = self._zarr.create_array(
            store=str(path),
            shape=partial.shape,
            dtype="float32",
            # Every chunk is a file, even if it is all zeros or NaN, so that a missing
            # one is detected. Other readers fill it with NaN, which is not a feature.
            fill_value=np.nan,
            config={"write_empty_chunks": True},
            chunks=(chunk, n_features),
            zarr_format=3,
            dimension_names=("image", "feature"),
            attributes={"feature_names": list(names), _KEY: record},
        )
        size = max(1, _n_rows(_GROUP, n_features) // chunk) * chunk  # whole chunks
        for start in range(0, n_rows, size):
            rows = partial.read(start, start + size)
            array[start : start + len(rows)] = rows
        for file in path.rglob("*"):
            if file.is_file():
                _sync(file)
        return path

    def install(self, assembled, names, record):
        """Move the assembled store to its path, replacing an older one."""
        replaced = assembled.with_name("replaced.zarr")
        shutil.rmtree(replaced, ignore_errors=True)
        if self.path.exists():
            os.replace(self.path, replaced)
        super().install(assembled, names, record)


FORMATS = {".parquet": Parquet, ".npy": Npy, ".zarr": Zarr}


def _stamp(path):
    """Return what distinguishes a file from one that was written later."""
    file = stat_file(path)
    return [file.size, file.mtime_ns]


def _sync(path):
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
