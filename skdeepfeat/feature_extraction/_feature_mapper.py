"""FeatureMapper: the extractor as a function of batches, for data pipelines."""

import os
import sys
from collections.abc import Mapping

import numpy as np
from PIL import Image

from .._utils._parameter_errors import choice_error
from .._utils._public_function import public_function
from .._utils._shown import shown
from ._extraction import open_extraction
from ._feature_extractor import PretrainedFeatureExtractor
from ._settings import ExtractionSettings

_HINT = "use datasets' map with batched=True, or Ray's map_batches instead of map"
_AN_EXTRACTOR = "a PretrainedFeatureExtractor or None"
_ONE_IMAGE = (str, bytes, bytearray, memoryview, os.PathLike, Mapping, Image.Image)


class FeatureMapper:
    """Add a column of features to batches of a dataset.

    This is a callable for ``ray.data.Dataset.map_batches`` and
    ``datasets.Dataset.map``. Each worker creates one, which loads the weights at its
    first batch and keeps them.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor or None, default=None
        The extractor that computes the features. It need not be fitted, and
        ``cache=None`` is recommended: the dataset stores the features, and workers that
        share a cache wait for each other. None means
        ``PretrainedFeatureExtractor(cache=None)``.

    image_column : str, default="image"
        The column that holds the images: encoded bytes, arrays, PIL images, paths, or
        the dicts of Hugging Face, ``{"bytes": ..., "path": ...}``.

    feature_column : str, default="features"
        The name of the column to add. A column of this name is replaced.

    keep_columns : bool, default=True
        Whether to return the other columns as well. ``datasets.Dataset.map`` always
        keeps them.

    Raises
    ------
    TypeError, ValueError
        If a parameter of the mapper or of the extractor is wrong.

    See Also
    --------
    PretrainedFeatureExtractor : The same for scikit-learn.

    Notes
    -----
    A batch is a dict of arrays or lists, a pandas or polars data frame or a pyarrow
    table. The result has the same type. Each row of features is a vector of float32.

    `BadImageError.index` and `NonFiniteOutputError.indices` are indices into the batch.

    Examples
    --------
    >>> import numpy as np
    >>> from skdeepfeat import FeatureMapper, PretrainedFeatureExtractor
    >>> mapper = FeatureMapper(PretrainedFeatureExtractor(image_size=32, cache=None))
    >>> batch = {"image": np.zeros((2, 32, 32, 3), np.uint8), "label": [0, 1]}
    >>> {name: np.shape(column) for name, column in mapper(batch).items()}
    {'image': (2, 32, 32, 3), 'label': (2,), 'features': (2, 1280)}

    With Ray Data, two workers with a GPU each::

        extractor = PretrainedFeatureExtractor("resnet50", cache=None)
        ds.map_batches(
            FeatureMapper,
            fn_constructor_args=[extractor],
            batch_size=128,
            compute=ray.data.ActorPoolStrategy(size=2),
            num_gpus=1,
        )

    With Hugging Face datasets::

        ds.map(FeatureMapper(extractor), batched=True, batch_size=128)
    """

    def __init__(
        self,
        extractor=None,
        *,
        image_column="image",
        feature_column="features",
        keep_columns=True,
    ):
        if extractor is None:
            extractor = PretrainedFeatureExtractor(cache=None)
        for name, value, kind, wanted in [
            ("extractor", extractor, PretrainedFeatureExtractor, _AN_EXTRACTOR),
            ("image_column", image_column, str, "a str"),
            ("feature_column", feature_column, str, "a str"),
            ("keep_columns", keep_columns, (bool, np.bool_), "True or False"),
        ]:
            if not isinstance(value, kind):
                raise choice_error(name, wanted, value, error=TypeError)
        extractor._validate_params()
        # A copy with the same network, which later changes of parameters do not affect.
        self.extractor = PretrainedFeatureExtractor(**extractor.get_params(deep=False))
        self.image_column = image_column
        self.feature_column = feature_column
        self.keep_columns = bool(keep_columns)
        self._neck = None

    @public_function
    def __call__(self, batch):
        """Return the batch with the features of its images.

        Parameters
        ----------
        batch : dict, pandas.DataFrame, polars.DataFrame or pyarrow.Table

        Returns
        -------
        batch : of the same type

        Raises
        ------
        TypeError, ValueError
            If it has another type, is a single row, or lacks the column.
        BadImageError
            If an image cannot be read, with ``on_error="raise"``.
        NonFiniteOutputError
            If the network returns NaN or infinite values for an image that can be read.
        """
        columns = _columns_of(batch)
        if self.image_column not in columns:
            wanted = f"one of the columns {columns}"
            raise choice_error("image_column", wanted, self.image_column, columns)
        column = batch[self.image_column]
        # A str or bytes could pass for a column of letters or integers.
        if column is None or isinstance(column, _ONE_IMAGE):
            raise TypeError(
                f"FeatureMapper takes batches, not single rows: {_HINT}. Got one "
                f"{type(column).__name__} instead of the column "
                f"{shown(self.image_column)}."
            )
        images = _images_of(column)
        return _with_column(
            batch, self.feature_column, self._features(images), self.keep_columns
        )

    def _features(self, images):
        if self._neck is None:  # resolved once, not once for each batch
            with self.extractor._described_neck() as neck:
                self._neck = neck
        if not len(images):
            return np.empty((0, sum(self._neck.n_features())), np.float32)
        # The choice of the runtime must not depend on the size of a batch.
        settings = ExtractionSettings.of(self.extractor, n_images=sys.maxsize)
        cache = self.extractor.cache
        with open_extraction(
            images, self._neck, cache, settings, in_parts=True
        ) as extraction:
            return extraction.features()

    def __getstate__(self):
        # Nothing that depends on earlier batches: datasets compares pickles to find out
        # whether it knows the result already.
        return {**vars(self), "_neck": None}

    def __repr__(self):
        return (
            f"FeatureMapper({self.extractor!r}, image_column="
            f"{shown(self.image_column)}, feature_column={self.feature_column!r})"
        )


def _columns_of(batch):
    if isinstance(batch, Mapping):
        return list(batch)
    for name in ("column_names", "columns"):
        # Of the type, because columns of a pandas frame are attributes, too.
        if hasattr(type(batch), name):
            return list(getattr(batch, name))
    raise TypeError(
        "FeatureMapper takes batches: dicts of columns, data frames or pyarrow tables "
        f"({_HINT}; for a list of images, use PretrainedFeatureExtractor). "
        f"Got {type(batch).__name__}."
    )


# -- Input


def _images_of(column):
    """Return a column as the extractor takes it."""
    if type(column).__module__.partition(".")[0] == "pyarrow":
        column = _from_arrow(column)
    elif hasattr(column, "to_list"):  # pandas and polars
        column = column.to_list()
    if isinstance(column, np.ndarray) and column.dtype != object:
        return _as_bytes(column)
    if not isinstance(column, (list, tuple, np.ndarray)):
        if hasattr(column, "shape"):
            return column  # a tensor
        column = list(column)  # a column type of datasets
    return [_image_of(element) for element in column]


def _from_arrow(column):
    import pyarrow

    if isinstance(column, pyarrow.ChunkedArray):
        parts = [_from_arrow(chunk) for chunk in column.chunks]
        if len(parts) == 1:
            return parts[0]
        return [element for part in parts for element in part]
    if isinstance(column, pyarrow.ExtensionArray):
        # Tensors of pyarrow or of Ray.
        if hasattr(column, "to_numpy_ndarray"):
            return column.to_numpy_ndarray()
        return column.to_numpy(zero_copy_only=False)
    return column.to_pylist()


def _image_of(element):
    if isinstance(element, list):
        element = np.asarray(element)
    return _as_bytes(element) if isinstance(element, np.ndarray) else element


def _as_bytes(pixels):
    """Return integers from 0 to 255 as uint8, which Arrow and datasets do not keep."""
    if pixels.dtype.kind == "i" and pixels.size:
        if 0 <= pixels.min() and pixels.max() <= 255:
            return pixels.astype(np.uint8)
    return pixels


# -- Output


def _with_column(batch, name, features, keeps):
    if not isinstance(batch, Mapping):
        return _with_table_column(batch, name, features, keeps)
    if not keeps:
        return {name: features}
    if type(batch) is not dict and hasattr(batch, "__setitem__"):
        # A batch of datasets decodes its columns when they are accessed, so the others
        # must not be touched, and datasets expects its own batch back.
        batch[name] = features
        return batch
    return {**batch, name: features}


def _with_table_column(batch, name, features, keeps):
    if hasattr(type(batch), "with_columns"):
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
