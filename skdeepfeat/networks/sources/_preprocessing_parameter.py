"""Reading the parameters that describe a network: weights, size, preprocessing."""

import dataclasses
import numbers
import os

import numpy as np
from torchvision.models import WeightsEnum

from ..._utils._preprocessing import MAX_SIDE, Preprocessing
from ..._utils._suggestions import did_you_mean
from ...exceptions import WeightsNotFoundError
from .._parameter_errors import choice_error
from ._image_transforms import (
    INTERPOLATIONS,
    is_transform,
    preprocessing_from_transform,
)
from ._timm import preprocessing_from_config
from ._weights_sources import FileWeights, RandomWeights

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
    weights : str, PathLike or WeightsEnum
    random_state : int
        The seed of ``weights="random"``.
    needs_file : bool, default=True
        Whether a file must be there already.

    Returns
    -------
    str, WeightsEnum, FileWeights or RandomWeights
    """
    if isinstance(weights, str) and weights == "random":
        if not isinstance(random_state, numbers.Integral) or isinstance(
            random_state, bool
        ):
            raise choice_error(
                "random_state",
                "an int with weights='random', because every process and every call "
                "has to build the same network",
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
    wanted = "'default', the name of weights, a file, or 'random' for random weights"
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
    wanted = (
        f"None, or the network's input size in pixels, from 1 to {MAX_SIDE}, as a "
        "number or (height, width); 'flat_image_shape' is the shape of flattened images"
    )
    if len(pair) != 2:
        raise choice_error("image_size", wanted, image_size)
    for side in pair:
        if not isinstance(side, numbers.Integral) or isinstance(side, bool):
            raise choice_error("image_size", wanted, image_size, error=TypeError)
        if not 1 <= side <= MAX_SIDE:
            raise choice_error("image_size", wanted, image_size)
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
        return _checked(preprocessing)
    if is_transform(preprocessing):
        return _checked(preprocessing_from_transform(preprocessing))
    if not isinstance(preprocessing, dict):
        raise choice_error(
            "preprocessing",
            f"None, a dict with {', '.join(_FIELDS)}, a timm configuration, "
            "torchvision's weights.transforms() or a Compose of transforms",
            preprocessing,
            error=TypeError,
        )
    if not preprocessing.keys() & _TIMM_KEYS:
        return _checked(_from_fields(preprocessing))
    try:
        found = preprocessing_from_config(preprocessing)
    except Exception as error:  # timm checks nothing of what it is given
        wanted = f"a configuration that timm can read ({type(error).__name__}: {error})"
        raise choice_error("preprocessing", wanted, preprocessing) from error
    return _checked(found)


def _from_fields(fields):
    for name in fields:
        if name not in _FIELDS:
            hint = did_you_mean(str(name), _FIELDS)
            raise choice_error(
                "preprocessing", f"a dict with keys of {', '.join(_FIELDS)}", fields
            ) from ValueError(f"{name!r} is not one of them.{hint}")
    if fields.get("crop") is None:
        raise choice_error("preprocessing", "a dict that has at least 'crop'", fields)
    crop = _as_size("crop", fields["crop"], "a number of pixels or (height, width)")
    return Preprocessing(**{"resize": min(crop), **fields, "crop": crop})


def _checked(found):
    """Return a `Preprocessing` with values of Python's own types.

    Raises
    ------
    ValueError
        It names the field whose value cannot be applied.
    """
    values = {}
    for name, (convert, wanted) in _CONVERSIONS.items():
        values[name] = convert(name, getattr(found, name), wanted)
    return Preprocessing(**values)


def _field_error(name, wanted, value, error=ValueError):
    what = f"given with {wanted} as {name!r}"
    return choice_error("preprocessing", what, value, error=error)


def _as_size(name, value, wanted):
    try:
        return read_image_size(value)
    except (TypeError, ValueError) as error:
        raise _field_error(name, wanted, value, type(error)) from error


def _as_resize(name, value, wanted):
    found = _as_size(name, value, wanted) if value is not None else None
    if found is None:
        raise _field_error(name, wanted, value)
    return found if isinstance(value, (tuple, list, np.ndarray)) else found[0]


def _as_choice(*choices):
    def convert(name, value, wanted):
        found = getattr(value, "value", value)  # of torchvision's InterpolationMode
        if not isinstance(found, str) or found not in choices:
            raise _field_error(name, wanted, value)
        return found

    return convert, f"one of {', '.join(map(repr, choices))}"


def _as_three(kind, low, high):
    def convert(name, value, wanted):
        try:
            found = [one.item() if hasattr(one, "item") else one for one in value]
            fits = len(found) == 3 and all(
                isinstance(one, numbers.Real)
                and low <= one <= high
                and kind(one) == one
                for one in found
            )
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise _field_error(name, wanted, value)
        return tuple(kind(one) for one in found)

    return convert


# How each field's value is read, and what it must be.
_CONVERSIONS = {
    "resize": (_as_resize, "a number of pixels or (height, width)"),
    "crop": (_as_size, "a number of pixels or (height, width)"),
    "interpolation": _as_choice(*INTERPOLATIONS),
    "mean": (_as_three(float, -1e6, 1e6), "three finite numbers"),
    "std": (_as_three(float, 1e-6, 1e6), "three finite numbers above 0"),
    "crop_mode": _as_choice("center", "border"),
    "fill": (_as_three(int, 0, 255), "three whole numbers from 0 to 255"),
}
