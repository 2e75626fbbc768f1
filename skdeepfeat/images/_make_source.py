"""From X in any of its forms to an `ImageSource`."""

import numbers
from collections.abc import Iterator, Mapping, Sequence, Set

import numpy as np
import scipy.sparse
from PIL import Image
from sklearn.utils import Bunch

from skdeepfeat._utils._choices import DEFAULT_MAX_PIXELS
from skdeepfeat._utils._parameter_errors import check_count, choice_error
from skdeepfeat._utils._printable import printable
from skdeepfeat._utils._shown import shown
from skdeepfeat._utils._tensors import is_tensor

from ._array_source import ArraySource
from ._canonical import CHANNELS
from ._dataset_column import EncodedColumn, images_of_dataset
from ._encoded_images import is_open_file
from ._image_limits import max_jpeg_scans
from ._list_source import ListSource, is_missing, is_number

# Objects that have one of these are collections: arrays, Series, frames of all kinds.
# This works without importing polars and pyarrow, which are optional.
_COLLECTION_ATTRIBUTES = ("__array__", "to_list", "to_pylist", "columns")


def make_image_source(
    X, flat_image_shape=None, max_pixels=DEFAULT_MAX_PIXELS, storage_options=None
):
    """Return the images of X.

    Parameters
    ----------
    X : collection of n images
        A list, tuple, object array, Series, one-column frame or (n, 1) array of paths
        (str or os.PathLike), encoded images (bytes, base64 texts, ``data:`` URIs, dicts
        ``{"bytes": ..., "path": ...}``, open files), PIL images, arrays (H, W[, C]) and
        tensors ([C, ]H, W), mixed as they come; a column of a Hugging Face data set; an
        array (n, H, W[, C]); a tensor (n, [C, ]H, W); or, with `flat_image_shape`, flat
        rows (n, H * W [* C]). Values are uint8, bool, uint16 (65535 is white) or floats
        in [0, 1].
    flat_image_shape : tuple (H, W) or (H, W, C), default=None
        The shape of one image, in pixels, if X holds flat rows; ignored otherwise.
    max_pixels : int or None, default=89_478_485
        A file or PIL image that claims more pixels cannot be read. None: no limit but
        Pillow's own.
    storage_options : mapping of str or None, default=None
        None: addresses (``s3://...``) cannot be read. A mapping, which may be empty:
        fsspec reads them with these options of its file system.

    Returns
    -------
    ImageSource

    Raises
    ------
    TypeError, ValueError
        If X as a whole, or a parameter, is invalid. What is wrong with a single image
        is reported by the source's `digests` and `pixels`.
    """
    _check_parameters(flat_image_shape, max_pixels, storage_options)
    if isinstance(X, (list, tuple)):
        images = _images_of_list(list(X), flat_image_shape)
    else:
        images = images_of_dataset(X)
        if images is None:
            _refuse_non_collections(X)
            images = X
        if not isinstance(images, EncodedColumn):
            images = _images_of(images, flat_image_shape)
    if isinstance(images, (list, EncodedColumn)):
        return ListSource(images, max_pixels, storage_options)
    return ArraySource(images)


def _images_of(X, flat_image_shape):
    """Return the images of X as a list, or as an array or tensor of one size."""
    if is_tensor(X):
        return _images_of_tensor(X, flat_image_shape)
    if hasattr(X, "columns") and len(getattr(X, "shape", ())) == 2:
        if flat_image_shape is not None:
            values = np.asarray(X.to_numpy() if hasattr(X, "to_numpy") else X)
            if X.shape[1] != 1 or values.dtype.kind in "biuf":
                return _images_of_array(values, flat_image_shape)
        X = _single_column(X)
    for name in ("to_list", "to_pylist"):  # pandas and polars; pyarrow
        if hasattr(X, name):
            return _images_of_list(list(getattr(X, name)()), flat_image_shape)
    if isinstance(X, Sequence):
        return _images_of_list(list(X), flat_image_shape)
    return _images_of_array(np.asarray(X), flat_image_shape)


def _single_column(X):
    """Return the one column of a frame, or raise ValueError."""
    if X.shape[1] != 1:
        has_names = hasattr(type(X), "column_names")  # pyarrow's columns are arrays
        columns = list(X.column_names if has_names else X.columns)[:5]
        names = [printable(name)[:80] for name in columns]
        raise ValueError(
            "A frame X must have one column, that of the images: use X[['path']], a "
            "ColumnTransformer that chooses it, or flat_image_shape=(H, W, C) if the "
            f"columns are pixels. Got {X.shape[1]} columns: {', '.join(names)}"
            f"{' ...' if X.shape[1] > 5 else ''}."
        )
    if hasattr(X, "iloc"):
        return X.iloc[:, 0]
    if hasattr(X, "get_column"):  # polars and narwhals
        return X.get_column(X.columns[0])
    return X.column(0)


def _check_parameters(flat_image_shape, max_pixels, storage_options):
    if not (flat_image_shape is None or _is_image_shape(flat_image_shape)):
        wanted = (
            "None, (H, W) or (H, W, C) with sides in pixels of at least 1 and 1, 2, 3 "
            "or 4 channels. The size that the network sees is 'image_size'"
        )
        raise choice_error("flat_image_shape", wanted, flat_image_shape)
    check_count("max_pixels", max_pixels, may_be_none=True)
    if storage_options is not None and not (
        isinstance(storage_options, Mapping)
        and all(isinstance(name, str) for name in storage_options)
    ):
        # Not shown, because its values may be passwords.
        raise ValueError(
            "The 'storage_options' parameter must be None or a dict of options by "
            f"name. Got a {type(storage_options).__name__} instead."
        )
    max_jpeg_scans()  # raises if the environment variable is invalid


def _is_image_shape(shape):
    return (
        isinstance(shape, (tuple, list))
        and len(shape) in (2, 3)
        and all(isinstance(side, numbers.Integral) and side >= 1 for side in shape)
        and (len(shape) == 2 or shape[2] <= 4)
    )


def _refuse_non_collections(X):
    """Raise TypeError, with what to write instead."""
    name = printable(type(X).__name__)[:80]
    if hasattr(X, "__fspath__") or isinstance(X, str):
        advice = "X is a single path: use [X] (load_image_folder reads a folder)"
    elif isinstance(X, (bytes, bytearray, memoryview, np.bytes_)):
        advice = "X is a single encoded image: use [X]"
    elif is_open_file(X):
        advice = "X is a single open file: use [X]"
    elif isinstance(X, Image.Image):
        advice = "X is a single PIL image: use [X]"
    elif scipy.sparse.issparse(X) or (
        is_tensor(X) and str(X.layout) != "torch.strided"
    ):
        advice = "X is sparse, which images are not: use X.toarray() or X.to_dense()"
    elif isinstance(X, np.ma.MaskedArray):
        advice = "X is masked: use X.filled(0), or the value that the gaps should have"
    elif isinstance(X, Bunch):
        advice = "X has labels and names as well: use X.data"
    elif isinstance(X, Mapping):
        advice = "X is a mapping: use list(X.values()), or [X] if it is one image"
    elif isinstance(X, Set):
        advice = "X is a set, which has no order of rows: use sorted(X)"
    elif isinstance(X, Iterator):
        advice = "X can be iterated over only once: use list(X)"
    elif hasattr(X, "collect") and hasattr(X, "collect_schema"):
        advice = "X is not computed yet: use X.collect()"
    elif is_number(X) or not (
        isinstance(X, Sequence)
        or any(hasattr(X, name) for name in _COLLECTION_ATTRIBUTES)
    ):
        advice = "use a list of paths, an array (n, H, W, C), or a column of a frame"
    else:
        return
    raise TypeError(f"X must be a collection of images; {advice}. Got {name} instead.")


def _images_of_list(elements, flat_image_shape):
    if not elements:
        return []
    if flat_image_shape is not None and _is_flat(elements[0]):
        return _images_of_array(_stacked(elements), flat_image_shape)
    if all(isinstance(element, (list, tuple)) for element in elements):
        if all(len(element) == 1 for element in elements):
            return _images_of_list([element[0] for element in elements], None)
        return _images_of_array(_stacked(elements), flat_image_shape)
    if is_number(elements[0]) or is_missing(elements[0]):
        _refuse_numbers(elements)
    return elements


def _is_flat(element):
    is_array = isinstance(element, np.ndarray) and element.ndim == 1
    is_list = isinstance(element, (list, tuple)) and len(element) > 0
    return is_array or (is_list and is_number(element[0]))


def _refuse_numbers(elements):
    present = [element for element in elements if not is_missing(element)]
    if present and all(is_number(element) for element in present):
        raise TypeError(
            "X must be a collection of images, but it is a sequence of numbers: choose "
            "the column that holds the paths, or pass 2-D rows and "
            f"flat_image_shape=(H, W, C). Got {len(elements)} values, first "
            f"{shown(present[0])}."
        )


def _stacked(rows):
    try:
        array = np.asarray(rows)
    except ValueError:
        array = None  # rows of different lengths
    if array is None or array.dtype.kind not in "biuf":
        raise TypeError(
            "X must be a collection of images, but its elements are sequences that do "
            "not make one numeric array: use a list of arrays, np.asarray(element) for "
            f"each. Got {type(rows[0]).__name__} as the first."
        )
    return array


def _images_of_array(X, flat_image_shape):
    X = np.asarray(X)  # np.matrix would always stay 2-D
    if X.dtype.kind == "S":
        raise TypeError(
            "X must not be an array of numpy's fixed-length bytes, which lose trailing "
            "NULs: use np.array(list_of_bytes, dtype=object) for encoded images, str "
            f"for paths. Got dtype {X.dtype!s:.80}."
        )
    if X.dtype.kind in "OUT":
        return _images_of_objects(X, flat_image_shape)
    if X.dtype.kind not in "biuf":
        raise TypeError(
            "X must hold paths, images or pixel values (uint8, or floats in [0, 1]). "
            f"Got dtype {X.dtype!s:.80}."
        )
    if flat_image_shape is not None and X.ndim == 2:
        return _unflattened(X, flat_image_shape)
    if X.shape[:1] == (0,):
        return []
    _check_array_shape(X.shape)
    return X


def _images_of_objects(X, flat_image_shape):
    if X.ndim == 1 or (X.ndim == 2 and X.shape[1] == 1):
        return _images_of_list(X.reshape(-1).tolist(), flat_image_shape)
    if X.dtype.kind == "O" and flat_image_shape is not None and X.ndim == 2:
        try:
            rows = X.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                "With flat_image_shape, X must hold numbers only: drop the other "
                f"columns. Got: {shown(str(error))}."
            ) from error
        return _unflattened(rows, flat_image_shape)
    advice = "use X.astype(np.uint8), or a list of arrays"
    if X.ndim == 2:
        advice = "choose the column that holds the images, X[:, 0]"
    raise ValueError(
        f"X of dtype {X.dtype!s:.80} must have shape (n,) or (n, 1): {advice}. "
        f"Got shape {X.shape}."
    )


def _unflattened(X, flat_image_shape):
    n_columns = int(np.prod(flat_image_shape))
    if X.shape[1] != n_columns:
        product = " * ".join(map(str, flat_image_shape))
        raise ValueError(
            f"With flat_image_shape={flat_image_shape}, X must have {product} = "
            f"{n_columns} columns. Got {X.shape[1]}."
        )
    return X.reshape(-1, *flat_image_shape)


def _check_array_shape(shape):
    """Raise ValueError unless a numeric array is (n, H, W) or (n, H, W, C)."""
    advice = None
    if len(shape) < 2:
        advice = "one row of numbers holds no images"
    elif len(shape) == 2:
        advice = (
            "pass flat_image_shape=(H, W) or (H, W, C) if its rows are flattened "
            "images, X[np.newaxis] if it is one gray image"
        )
    elif len(shape) == 3 and shape[2] in CHANNELS:
        advice = (
            "use X[np.newaxis] if it is one image (H, W, C), X[..., np.newaxis] if it "
            "is n gray ones of that width"
        )
    elif len(shape) == 4 and shape[3] not in CHANNELS:
        advice = "an image has 1, 3 or 4 channels, on the last axis"
        if shape[1] in CHANNELS:
            advice = "the channels must come last: use X.transpose(0, 2, 3, 1)"
    elif len(shape) > 4:
        advice = "reshape it, or choose an index on the axes too many"
    _refuse_shape(shape, "An array X", "(n, H, W) or (n, H, W, C)", advice)


def _images_of_tensor(X, flat_image_shape):
    if flat_image_shape is not None and X.ndim == 2:
        if X.is_complex():
            raise TypeError(
                f"X must hold real pixel values. Got dtype {X.dtype!s:.80}."
            )
        flat = _unflattened(X, flat_image_shape)
        # Flat rows are (H, W, C), also in a tensor.
        return flat.movedim(-1, 1) if flat.ndim == 4 else flat
    shape, advice = tuple(X.shape), None
    if len(shape) and len(X) == 0:
        return []
    if len(shape) == 2:
        advice = (
            "X[None] if it is one gray image; flat_image_shape=(H, W, C) for flat rows"
        )
    elif len(shape) == 3 and shape[2] in CHANNELS:
        advice = "use X.permute(2, 0, 1)[None] if it is one image (H, W, C)"
    elif len(shape) == 4 and shape[1] not in CHANNELS:
        advice = "an image has 1, 3 or 4 channels, on the second axis"
        if shape[3] in CHANNELS:
            advice = "the channels must come second: use X.permute(0, 3, 1, 2)"
    elif len(shape) not in (3, 4):
        advice = "reshape it"
    _refuse_shape(shape, "A tensor X", "(n, H, W) or (n, C, H, W)", advice)
    return X


def _refuse_shape(shape, what, wanted, advice):
    if 0 in shape[1:] and not advice:
        advice = "its images have no pixels"
    if advice:
        raise ValueError(f"{what} must have shape {wanted}: {advice}. Got {shape}.")
