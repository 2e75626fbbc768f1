"""What files of a tuned network have in common, whatever runtime reads them."""

import contextlib
import logging
import pathlib
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _num_samples
from torch import nn

from .._utils._address import check_local
from .._utils._parameter_errors import choice_error, first_line, look_up
from .._utils._shown import shown_path
from ..feature_extraction import errors_about, errors_at
from ._fitted_estimator import FittedEstimator

logger = logging.getLogger(__name__)

DTYPES = ("float32", "float16", "int8")

# In an export. Not 1, which the exporter would treat as a constant.
_N_EXAMPLES = 2

# Fewer images do not cover the range of the values.
_LEAST_CALIBRATION = 10
# More images have almost no effect, and each takes some tens of milliseconds.
_MOST_CALIBRATION = 300

_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


class ScaleTargets(nn.Module):
    """Scale the outputs of a regressor to its targets.

    Parameters
    ----------
    mean, scale : ndarray of float, shape (n_targets,)
    is_vector : bool, default=False
        Whether there is one target per sample, without an axis.
    dtype : torch.dtype, default=torch.float64
        By default as in the estimator: targets such as years need more digits than
        float32 has.
    """

    def __init__(self, mean, scale, is_vector=False, dtype=torch.float64):
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=dtype))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=dtype))
        self.is_vector = is_vector

    def forward(self, outputs):
        """Return the targets."""
        values = outputs.to(self.scale.dtype) * self.scale + self.mean
        return values[:, 0] if self.is_vector else values


@dataclass(frozen=True)
class Export:
    """A network to write.

    Attributes
    ----------
    network : PixelsToResult
    example : Tensor of uint8, shape (n_images, height, width, 3)
    output_name : str
        The name of the result in the file.
    notes : dict of str to JSON types
        Metadata of the file.
    dtype : {"float32", "float16", "int8"}
    calibration : ndarray of uint8, shape (n_images, height, width, 3), or None
        Images for "int8".
    """

    network: nn.Module
    example: torch.Tensor
    output_name: str
    notes: dict
    dtype: str
    calibration: np.ndarray | None


def check_export(method, ending, path, dtype, X_calibration):
    """Raise if a parameter of `to_onnx` or `to_openvino` is invalid.

    Parameters
    ----------
    method : str
        Its name, for the errors.
    ending : str
        What the path must end in.
    path, dtype, X_calibration
        The parameters.
    """
    if not isinstance(path, str) and not hasattr(path, "__fspath__"):
        wanted = f"a str or path-like that ends in {ending!r} for {method}"
        raise choice_error("path", wanted, path, error=TypeError)
    check_local(path, "path")
    if pathlib.Path(path).suffix != ending:
        raise ValueError(
            f"The 'path' parameter of {method} must end in {ending!r}. "
            f"Got {shown_path(path)} instead."
        )
    look_up(dict.fromkeys(DTYPES), dtype, "dtype")
    if dtype == "int8" and X_calibration is None:
        raise ValueError(
            f"The 'X_calibration' parameter of {method} must be given for "
            "dtype='int8': images that show how large the values inside the network "
            "become. About a hundred are enough. Got None instead."
        )


def make_export(method, estimator, dtype, X_calibration):
    """Return the `Export` of a fitted estimator.

    Parameters
    ----------
    method : str
        For the errors.
    estimator : BaseFineTune
    dtype, X_calibration
        Checked parameters of the method.

    Raises
    ------
    BadImageError
    ValueError
        If the estimator cannot be exported, or X_calibration has too few images.
    """
    fitted = FittedEstimator(estimator, method)
    if (views := estimator.test_time_augmentation) is not None:
        wanted = (
            f"None for {method}, because the network in the file sees one view of an "
            "image: call set_params(test_time_augmentation=None) first"
        )
        raise choice_error("test_time_augmentation", wanted, views)
    network, output_name, notes = fitted.pixels_to_result()
    check_finite(network)
    images = None
    if dtype == "int8":
        images = calibration_pixels(method, fitted, X_calibration)
    preprocessing = fitted.neck.preprocessing
    notes = {"preprocessing": preprocessing.describe(), "dtype": dtype, **notes}
    example = example_pixels(preprocessing.crop)
    return Export(network, example, output_name, notes, dtype, images)


def example_pixels(size):
    """Return images to trace a network with, uint8, (n_images, height, width, 3)."""
    return torch.zeros((_N_EXAMPLES, *size, 3), dtype=torch.uint8)


def calibration_pixels(method, fitted, X):
    """Return images as the network sees them, at most 300 from all over X.

    Parameters
    ----------
    method : str
        For the errors.
    fitted : FittedEstimator
        Its `on_error` decides about images that cannot be read.
    X : array-like of images

    Returns
    -------
    ndarray of uint8, shape (n_images, height, width, 3)

    Raises
    ------
    BadImageError
    ValueError
        If there are too few images.
    """
    if not hasattr(X, "__len__") and not hasattr(X, "shape"):
        wanted = f"a list, an array or a column of images for {method}"
        raise choice_error("X_calibration", wanted, X, error=TypeError)
    n_given = _num_samples(X)
    # Spread over X, which may be sorted by class.
    n_used = min(n_given, _MOST_CALIBRATION)
    used = np.linspace(0, n_given - 1, n_used).round().astype(int)
    if n_given < _LEAST_CALIBRATION:
        raise _too_few_images(method, n_given)
    if n_used < n_given:
        X = _safe_indexing(X, used)
    with errors_about("X_calibration"), errors_at(used):
        pixels, rows = fitted.decode(X)
    if len(rows) < _LEAST_CALIBRATION:
        raise _too_few_images(method, f"{n_given}, {len(rows)} of which can be read")
    return pixels


def _too_few_images(method, found):
    return ValueError(
        f"The 'X_calibration' parameter of {method} must have at least "
        f"{_LEAST_CALIBRATION} images. Got {found}."
    )


def check_finite(network):
    """Raise if a weight is NaN or infinite."""
    for name, weight in network.named_parameters():
        if not weight.isfinite().all():
            raise ValueError(
                f"The weights of the network must be finite to be written. {name!r} "
                "has NaN or infinite values. Fit it again with a smaller "
                "'learning_rate'."
            )


@contextlib.contextmanager
def explained(network, done):
    """Turn an error of a converter, which may raise any, into one about the network.

    Parameters
    ----------
    network : PixelsToResult
    done : str
        What it cannot be, such as "exported to ONNX".
    """
    try:
        yield
    except Exception as error:
        logger.debug("the network cannot be %s", done, exc_info=True)
        raise _refusal(network, done, first_line(error.__cause__ or error)) from error


def fixed_number_error(network, done):
    """Return the error about a network that is converted for one number of images."""
    return _refusal(
        network,
        done,
        "its forward makes the number of images an int, as len(x) does. Use "
        "x.shape[0], or -1 in its place.",
    )


def _refusal(network, done, cause):
    name = type(network.neck.network).__name__
    return ValueError(f"The network {name} cannot be {done}: {cause}")


def check_fits_float16(tensors):
    """Raise if a finite number of a network is infinite in float16.

    Parameters
    ----------
    tensors : iterable of (str, ndarray of float32)
        Names and values.
    """
    for name, values in tensors:
        largest = np.abs(values[np.isfinite(values)]).max(initial=0)
        if largest > _LARGEST_FLOAT16:
            raise ValueError(
                "The 'dtype' parameter must be 'float32' for this network: its tensor "
                f"{name!r} has a value of size {largest:.3g}, and float16 ends at "
                f"{_LARGEST_FLOAT16:g}. Got 'float16' instead."
            )
