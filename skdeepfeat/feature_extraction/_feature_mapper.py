"""FeatureMapper: the extractor as a function of batches, for data pipelines."""

import os
from collections.abc import Mapping

import numpy as np
from PIL import Image

from .._utils._forks import survives_fork
from .._utils._shown import shown
from .._utils._suggestions import did_you_mean
from ._feature_extractor import PretrainedFeatureExtractor

__all__ = ["FeatureMapper"]

_WAY_OUT = "use datasets' map with batched=True, Ray's map_batches instead of map"
_ONE_IMAGE = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, Image.Image)


class FeatureMapper:
    """Adds a column of features to batches of a data set.

    It is what ``ray.data.Dataset.map_batches`` and ``datasets.Dataset.map`` call: a
    callable that is made once for each worker, loads the weights at its first batch and
    keeps them.

    Parameters
    ----------
    image_column : str, default="image"
        The column that holds the images: encoded bytes, arrays, PIL images, paths, or
        what Hugging Face keeps of an image, ``{"bytes": ..., "path": ...}``.

    feature_column : str, default="features"
        The column that is added. It replaces one of that name.

    keep_columns : bool, default=True
        Whether the other columns are returned as well. ``datasets.Dataset.map`` keeps
        them in any case.

    **parameters
        Those of `PretrainedFeatureExtractor`. `cache` is None by default here, because
        the data set keeps what was computed, and because workers that share a cache
        would wait for each other.

    Raises
    ------
    TypeError, ValueError
        If a parameter is wrong.

    See Also
    --------
    PretrainedFeatureExtractor : The same for scikit-learn.

    Notes
    -----
    A batch is a dict of arrays or lists, a pandas or polars data frame or a pyarrow
    table, and so is the result. Each row of features is a vector of float32.

    `BadImageError.row` and `NonFiniteOutputError.rows` count from the beginning of
    the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import FeatureMapper
    >>> mapper = FeatureMapper(image_size=32)
    >>> batch = {"image": np.zeros((2, 32, 32, 3), np.uint8), "label": [0, 1]}
    >>> {name: np.shape(column) for name, column in mapper(batch).items()}
    {'image': (2, 32, 32, 3), 'label': (2,), 'features': (2, 1280)}

    With Ray Data, two workers with a GPU each::

        ds.map_batches(
            FeatureMapper,
            fn_constructor_kwargs={"model": "resnet50"},
            batch_size=128, compute=ray.data.ActorPoolStrategy(size=2), num_gpus=1,
        )

    With Hugging Face datasets::

        ds.map(FeatureMapper(model="resnet50"), batched=True, batch_size=128)
    """

    def __init__(
        self,
        image_column="image",
        feature_column="features",
        keep_columns=True,
        **parameters,
    ):
        for name, value in [
            ("image_column", image_column),
            ("feature_column", feature_column),
        ]:
            if not isinstance(value, str):
                raise TypeError(
                    f"The {name!r} parameter of FeatureMapper must be a str. "
                    f"Got {shown(value)} instead."
                )
        if not isinstance(keep_columns, (bool, np.bool_)):
            raise TypeError(
                "The 'keep_columns' parameter of FeatureMapper must be a bool. "
                f"Got {shown(keep_columns)} instead."
            )
        self.image_column = image_column
        self.feature_column = feature_column
        self.keep_columns = bool(keep_columns)
        self._extractor = PretrainedFeatureExtractor(**{"cache": None, **parameters})
        self._extractor._validate_params()
        self._neck = None

    @survives_fork
    def __call__(self, batch):
        """Return a batch with the features of its images.

        Parameters
        ----------
        batch : dict, pandas.DataFrame, polars.DataFrame or pyarrow.Table

        Returns
        -------
        batch : of the same kind

        Raises
        ------
        TypeError, ValueError
            If it is none of these, is a single row, or lacks the column.
        BadImageError
            With ``on_error="raise"``: an image cannot be read.
        NonFiniteOutputError
            The network returns NaN or infinite values for an image that can be read.
        """
        columns = _columns_of(batch)
        if self.image_column not in columns:
            hint = did_you_mean(self.image_column, columns)
            raise ValueError(
                "The 'image_column' parameter of FeatureMapper must be one of the "
                f"columns {columns}. Got {shown(self.image_column)} instead.{hint}"
            )
        column = batch[self.image_column]
        # Letter by letter or byte by byte it could be taken for a column.
        if column is None or isinstance(column, _ONE_IMAGE):
            raise TypeError(
                f"FeatureMapper takes batches, not single rows: {_WAY_OUT}. Got one "
                f"{type(column).__name__} instead of the column "
                f"{shown(self.image_column)}."
            )
        images = _images_of(column)
        return _with_column(
            batch, self.feature_column, self._features(images), self.keep_columns
        )

    def _features(self, images):
        if self._neck is None:  # looked into once, not once for each batch
            self._neck = self._extractor._resolve_neck()
        if not len(images):
            return np.empty((0, sum(self._neck.n_features())), np.float32)
        return self._extractor._extract_part(images, self._neck)

    def __getstate__(self):
        # Nothing that a batch has left behind: datasets compares pickles to find out
        # whether it knows the result already.
        return {**vars(self), "_neck": None}

    def __repr__(self):
        return (
            f"FeatureMapper({shown(self.image_column)}, {self.feature_column!r}, "
            f"{self._extractor!r})"
        )


def _columns_of(batch):
    if isinstance(batch, Mapping):
        return list(batch)
    for name in ("column_names", "columns"):
        if hasattr(batch, name):
            return list(getattr(batch, name))
    hint = (
        _WAY_OUT
        if not isinstance(batch, (str, bytes))
        else "use PretrainedFeatureExtractor for paths"
    )
    raise TypeError(
        "FeatureMapper takes batches: dicts of columns, data frames or pyarrow tables; "
        f"{hint}. Got {type(batch).__name__}."
    )


# -- Images in


def _images_of(column):
    """Return a column as the extractor takes it."""
    if _is_arrow(column):
        column = _from_arrow(column)
    elif hasattr(column, "to_list"):  # pandas and polars
        column = column.to_list()
    if isinstance(column, np.ndarray) and column.dtype != object:
        return _as_bytes(column)
    if not isinstance(column, (list, tuple, np.ndarray)):
        if not hasattr(column, "shape"):  # datasets has columns of its own
            column = list(column)
        else:
            return column  # a tensor
    return [_image_of(element) for element in column]


def _is_arrow(column):
    return type(column).__module__.partition(".")[0] == "pyarrow"


def _from_arrow(column):
    import pyarrow

    if isinstance(column, pyarrow.ChunkedArray):
        parts = [_from_arrow(chunk) for chunk in column.chunks]
        if len(parts) == 1:
            return parts[0]
        return [element for part in parts for element in part]
    if isinstance(column, pyarrow.ExtensionArray):
        # Tensors, pyarrow's own and Ray's, which know how to become arrays.
        if hasattr(column, "to_numpy_ndarray"):
            return column.to_numpy_ndarray()
        return column.to_numpy(zero_copy_only=False)
    return column.to_pylist()


def _image_of(element):
    if isinstance(element, Mapping):
        known = {name: element[name] for name in ("bytes", "path") if name in element}
        if not known or len(element) > 2:
            raise TypeError(
                "An image that is a dict must have the keys 'bytes' and 'path'. Got "
                f"{sorted(map(str, element))} instead."
            )
        if known.get("bytes") is not None:
            return known["bytes"]
        return known.get("path")
    if isinstance(element, list):
        return _as_bytes(np.asarray(element))
    if isinstance(element, np.ndarray):
        return _as_bytes(element)
    return element


def _as_bytes(pixels):
    """Return pixels as the bytes that Arrow, datasets and Python forget they were."""
    if pixels.dtype.kind == "i" and pixels.size:
        if 0 <= pixels.min() and pixels.max() <= 255:
            return pixels.astype(np.uint8)
    return pixels


# -- Features out


def _with_column(batch, name, features, keeps):
    if not isinstance(batch, Mapping):
        return _with_table_column(batch, name, features, keeps)
    if not keeps:
        return {name: features}
    if type(batch) is not dict and hasattr(batch, "__setitem__"):
        # datasets reads its columns late: what is not touched is not decoded, and it
        # recognises its own batch when it comes back.
        batch[name] = features
        return batch
    return {**batch, name: features}


def _with_table_column(batch, name, features, keeps):
    if hasattr(batch, "with_columns"):
        import polars

        column = polars.Series(
            name, features, polars.Array(polars.Float32, features.shape[1])
        )
        return batch.with_columns(column) if keeps else polars.DataFrame([column])
    if hasattr(batch, "assign"):
        batch = batch if keeps else batch[[]]
        return batch.assign(**{name: list(features)})
    import pyarrow

    values = pyarrow.array(features.reshape(-1))
    column = pyarrow.FixedSizeListArray.from_arrays(values, features.shape[1])
    if not keeps:
        return pyarrow.table({name: column})
    if name in batch.column_names:
        return batch.set_column(batch.column_names.index(name), name, column)
    return batch.append_column(name, column)
