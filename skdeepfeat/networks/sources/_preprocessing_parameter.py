"""The parameters `preprocessing` and `image_size`."""

import dataclasses
import numbers

import numpy as np

from ..._utils._optional import loaded_class
from ..._utils._parameter_errors import choice_error, is_int
from ..._utils._preprocessing import INTERPOLATIONS, MAX_SIDE, Preprocessing

_FIELDS = [field.name for field in dataclasses.fields(Preprocessing)]
# Keys of a timm configuration that are not fields of `Preprocessing`.
_TIMM_KEYS = {"input_size", "crop_pct"}


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
    if isinstance(image_size, np.ndarray):
        image_size = image_size.tolist()  # a number if it has no axes
    is_pair = isinstance(image_size, (tuple, list))
    pair = list(image_size) if is_pair else [image_size] * 2
    wanted = (
        f"None, or the network's input size in pixels, from 1 to {MAX_SIDE}, as a "
        "number or (height, width); 'flat_image_shape' is the shape of flattened images"
    )
    if not all(map(is_int, pair)):
        raise choice_error("image_size", wanted, image_size, error=TypeError)
    if len(pair) != 2 or not all(1 <= side <= MAX_SIDE for side in pair):
        raise choice_error("image_size", wanted, image_size)
    return int(pair[0]), int(pair[1])


def read_preprocessing(preprocessing):
    """Return the `preprocessing` parameter as a `Preprocessing`, or None.

    Parameters
    ----------
    preprocessing : None, Preprocessing, dict or transform
        A dict has the fields of `Preprocessing`, or timm's keys.

    Returns
    -------
    Preprocessing or None
        With values of Python's own types.

    Raises
    ------
    TypeError, ValueError
        It names the field whose value cannot be used.
    """
    if preprocessing is None:
        return None
    if isinstance(preprocessing, loaded_class("timm.models", "PretrainedCfg")):
        preprocessing = preprocessing.to_dict()
    if isinstance(preprocessing, Preprocessing):
        found = preprocessing
    elif isinstance(preprocessing, dict):
        found = _read_dict(preprocessing)
    else:
        from ._image_transforms import preprocessing_from_transform  # slow to import

        found = preprocessing_from_transform(preprocessing)
    if found is None:
        raise choice_error(
            "preprocessing",
            f"None, a dict with {', '.join(_FIELDS)}, a timm configuration, "
            "torchvision's weights.transforms() or a Compose of transforms",
            preprocessing,
            error=TypeError,
        )
    return Preprocessing(
        **{name: _convert(name, getattr(found, name)) for name in _FIELDS}
    )


def _read_dict(fields):
    if fields.keys() & _TIMM_KEYS:
        from ._timm import preprocessing_from_config  # slow to import

        try:
            return preprocessing_from_config(fields)
        except Exception as error:  # timm does not check its input
            said = f"{type(error).__name__}: {error}"
            wanted = f"a configuration that timm can read ({said})"
            raise choice_error("preprocessing", wanted, fields) from error
    for name in fields:
        if name not in _FIELDS:
            wanted = f"a dict with keys of {', '.join(_FIELDS)}"
            raise choice_error("preprocessing", wanted, name, _FIELDS)
    if fields.get("crop") is None:
        raise choice_error("preprocessing", "a dict that has at least 'crop'", fields)
    crop = _convert("crop", fields["crop"])
    return Preprocessing(**{"resize": min(crop), **fields, "crop": crop})


def _convert(name, value):
    """Return the value of a field in Python's own types."""
    convert, wanted = _CONVERSIONS[name]
    try:
        return convert(value)
    except (TypeError, ValueError) as error:
        wanted = f"given with {wanted} as {name!r}"
        raise choice_error("preprocessing", wanted, value, error=type(error)) from error


def _to_crop(value):
    if value is None:
        raise ValueError
    return read_image_size(value)


def _to_resize(value):
    size = _to_crop(value)
    return size if isinstance(value, (tuple, list, np.ndarray)) else size[0]


def _to_one_of(*choices):
    def convert(value):
        found = getattr(value, "value", value)  # of torchvision's InterpolationMode
        if not isinstance(found, str) or found not in choices:
            raise ValueError
        return found

    return convert, f"one of {', '.join(map(repr, choices))}"


def _to_three(kind, low, high):
    def convert(value):
        found = [one.item() if hasattr(one, "item") else one for one in value]
        if len(found) != 3 or not all(
            isinstance(one, numbers.Real) and low <= one <= high and kind(one) == one
            for one in found
        ):
            raise ValueError
        return tuple(kind(one) for one in found)

    return convert


# How each field's value is converted, and what it must be.
_CONVERSIONS = {
    "resize": (_to_resize, "a number of pixels or (height, width)"),
    "crop": (_to_crop, "a number of pixels or (height, width)"),
    "interpolation": _to_one_of(*INTERPOLATIONS),
    "mean": (_to_three(float, -1e6, 1e6), "three finite numbers"),
    "std": (_to_three(float, 1e-6, 1e6), "three finite numbers above 0"),
    "crop_mode": _to_one_of("center", "border"),
    "fill": (_to_three(int, 0, 255), "three integers from 0 to 255"),
}
