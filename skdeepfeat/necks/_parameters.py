"""Reading the parameters that describe a network: weights, size, preprocessing."""

import dataclasses
import numbers
import os

import numpy as np
from torchvision.models import WeightsEnum

from .._errors import WeightsNotFoundError, did_you_mean
from .._preprocessing import Preprocessing
from ._messages import choice_error
from ._timm import preprocessing_from_config
from ._transforms import is_transform, preprocessing_from_transform
from ._weights import FileWeights, RandomWeights

__all__ = ["read_image_size", "read_preprocessing", "read_weights"]

_FIELDS = [field.name for field in dataclasses.fields(Preprocessing)]
# Of names without a folder that mean files, whether they are there or not.
_FILE_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".pkl")
# What a timm configuration holds and ours does not.
_TIMM_KEYS = {"input_size", "crop_pct"}


def read_weights(weights, random_state, needs_file=True):
    """Return the `weights` parameter as a name, a file's record or a seed's.

    Parameters
    ----------
    weights : str, PathLike, WeightsEnum or None
    random_state : int
        The seed where `weights` is None.
    needs_file : bool, default=True
        Whether a file must be there already.

    Returns
    -------
    str, WeightsEnum, FileWeights or RandomWeights
    """
    if weights is None:
        if not isinstance(random_state, numbers.Integral) or isinstance(
            random_state, bool
        ):
            raise choice_error(
                "random_state",
                "an int with weights=None, because every process and every call has "
                "to build the same network",
                random_state,
                error=TypeError,
            )
        return RandomWeights(int(random_state))
    if isinstance(weights, WeightsEnum):
        return weights
    if isinstance(weights, os.PathLike):
        return _read_file(os.fspath(weights), needs_file)
    if isinstance(weights, str):
        return _read_file(weights, needs_file) if _is_path(weights) else weights
    wanted = "'default', the name of weights, a file or None"
    raise choice_error("weights", wanted, weights, error=TypeError)


def _is_path(text):
    """Whether a str means a file. What kind of file, its content decides."""
    return (
        os.path.basename(text) != text
        or text.lower().endswith(_FILE_ENDINGS)
        or (text != "default" and os.path.isfile(text))
    )


def _read_file(path, needed):
    if needed and not os.path.isfile(path):
        raise WeightsNotFoundError(
            "The 'weights' parameter must be a file that exists. There is no file "
            f"{path!r} (looked for from {os.getcwd()})."
        )
    return FileWeights(os.path.abspath(path))


def read_image_size(image_size):
    """Return the `image_size` parameter as (height, width), or None.

    Parameters
    ----------
    image_size : None, int or pair of ints
        Pixels.

    Returns
    -------
    tuple of (int, int) or None
    """
    if image_size is None:
        return None
    is_pair = isinstance(image_size, (tuple, list, np.ndarray))
    pair = list(image_size) if is_pair else [image_size] * 2
    wanted = "a number of pixels, (height, width) or None"
    if len(pair) != 2:
        raise choice_error("image_size", wanted, image_size)
    for side in pair:
        if not isinstance(side, numbers.Integral) or isinstance(side, bool):
            raise choice_error("image_size", wanted, image_size, error=TypeError)
        if side < 1:
            raise choice_error("image_size", f"{wanted}, at least 1", image_size)
    return int(pair[0]), int(pair[1])


def read_preprocessing(preprocessing):
    """Return the `preprocessing` parameter as a `Preprocessing`, or None.

    Parameters
    ----------
    preprocessing : None, Preprocessing, dict or transform
        A dict holds fields of `Preprocessing`, or timm's keys.

    Returns
    -------
    Preprocessing or None
    """
    if preprocessing is None:
        return None
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    if is_transform(preprocessing):
        return preprocessing_from_transform(preprocessing)
    if not isinstance(preprocessing, dict):
        raise choice_error(
            "preprocessing",
            f"None, a dict with {', '.join(_FIELDS)}, a timm configuration, "
            "torchvision's weights.transforms() or a Compose of transforms",
            preprocessing,
            error=TypeError,
        )
    if preprocessing.keys() & _TIMM_KEYS:
        return preprocessing_from_config(preprocessing)
    return _from_fields(preprocessing)


def _from_fields(fields):
    for name in fields:
        if name not in _FIELDS:
            hint = did_you_mean(str(name), _FIELDS)
            raise choice_error(
                "preprocessing", f"a dict with keys of {', '.join(_FIELDS)}", fields
            ) from ValueError(f"{name!r} is not one of them.{hint}")
    crop = read_image_size(fields.get("crop"))
    if crop is None:
        raise choice_error("preprocessing", "a dict that has at least 'crop'", fields)
    values = {key: _as_tuple(value) for key, value in fields.items()}
    return Preprocessing(**{"resize": min(crop), **values, "crop": crop})


def _as_tuple(value):
    return tuple(value) if isinstance(value, list) else value
