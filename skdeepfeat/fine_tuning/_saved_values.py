"""What a saved estimator may contain: the parameters and attributes of a fit only.

The file may come from a stranger. Whoever loads it decides where rows are kept, which
addresses are read and how large an image may be.
"""

import math
import numbers
import re

import numpy as np
import pandas as pd
from sklearn.base import is_classifier
from torch import nn

from .._utils._preprocessing import MAX_SIDE
from .._utils._shown import shown
from ..exceptions import BadFileError
from ..networks import read_hub_config, read_preprocessing

__all__ = [
    "ATTRIBUTES",
    "NOT_SAVED",
    "check_attributes",
    "check_estimator",
    "check_outputs",
    "check_parameters",
]

# They concern a machine and not what was learned, or may hold a password.
NOT_SAVED = ("cache", "checkpoint", "storage_options")

_DEVICES = r"(auto|cpu|cuda(:\d{1,2})?|mps|xpu(:\d{1,2})?)"


def check_parameters(cls, parameters):
    """Return the parameters that are taken over.

    Raises
    ------
    BadFileError
    """
    unknown = sorted(parameters.keys() - set(cls._get_param_names()))
    if unknown:
        raise BadFileError(f"{cls.__name__} has no parameters {shown(unknown)}.")
    taken = {k: v for k, v in parameters.items() if k not in NOT_SAVED}
    default = cls().max_pixels
    if taken.get("max_pixels") is None or taken["max_pixels"] > default:
        taken.pop("max_pixels", None)
    return taken


def check_estimator(estimator):
    """Raise unless a new estimator's parameters are such as a fit takes.

    Raises
    ------
    BadFileError, ValueError
    """
    estimator._validate_params()
    if not re.fullmatch(_DEVICES, str(estimator.device)):
        raise _wrong("the parameter 'device'", estimator.device)
    sides = [estimator.image_size]
    if (geometry := read_preprocessing(estimator.preprocessing)) is not None:
        sides += [geometry.crop, geometry.resize]
    for size in sides:
        if not _are_sides(size):
            raise _wrong("a size of the images", size)
    # On Windows the name of another machine would be asked for it.
    if str(estimator.weights).startswith(("\\\\", "//")):
        raise _wrong("the parameter 'weights'", estimator.weights)


def _are_sides(size):
    sides = size if isinstance(size, (tuple, list, np.ndarray)) else [size]
    return size is None or all(_is_int(side, 1, MAX_SIDE) for side in sides)


def check_attributes(estimator, attributes):
    """Return the fitted attributes, each of the type and shape that a fit gives it.

    Raises
    ------
    BadFileError
    """
    for name, value in attributes.items():
        if name not in ATTRIBUTES:
            raise BadFileError(f"it has {shown(name)}, which no fit sets.")
        if not ATTRIBUTES[name](value):
            raise _wrong(f"the attribute {name!r}", value)
    needed = {"n_features_in_", "history_", "n_epochs_", "_n_features_out"}
    if is_classifier(estimator):
        needed |= {"classes_", "multilabel_"}
    else:
        needed |= {"_y_ndim", "_y_mean", "_y_scale"}
    if lacking := sorted(needed - attributes.keys()):
        raise BadFileError(f"it has no {lacking[0]!r}.")
    found = dict(attributes)
    config = found.get("_hub_config")
    if config is not None:
        found["_hub_config"] = read_hub_config(config, str(config.get("repository")))
    model = estimator.model if isinstance(estimator.model, str) else ""
    known = config is not None and model.partition(":")[2] == config.get("repository")
    if re.match("hf[-_]hub:", model) and not known:
        raise BadFileError(
            f"it names {shown(model)} but does not describe the network, and loading "
            "opens no connection."
        )
    return found


def check_outputs(estimator):
    """Raise unless head, neck and targets fit together.

    Raises
    ------
    BadFileError
    """
    sizes = [estimator._n_features_out]
    for layer in estimator.head_:
        if isinstance(layer, nn.Linear):
            if layer.in_features != sizes[-1]:
                raise _wrong("the head", sizes)
            sizes.append(layer.out_features)
    wanted = len(estimator.classes_ if is_classifier(estimator) else estimator._y_mean)
    if len(sizes) < 2 or sizes[-1] != wanted:
        raise _wrong(f"a head for {wanted} outputs, but", sizes)


def _wrong(what, value):
    return BadFileError(f"it has {what} {shown(value)}, which no fit gives.")


def _is_int(value, low, high):
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and low <= value <= high


def _is_count(value):
    return _is_int(value, 0, 2**53)


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_vector(kinds):
    def check(value):
        return (
            isinstance(value, np.ndarray)
            and value.ndim == 1
            and len(value) > 0
            and value.dtype.kind in kinds
            and all(
                isinstance(one, (str, numbers.Real, bool))
                for one in (value if value.dtype == object else ())
            )
        )

    return check


def _are_classes(value):
    """Return whether values are sorted and distinct, as a fit leaves them."""
    if not _is_vector("biufOU")(value):
        return False
    try:
        return bool((value[1:] > value[:-1]).all()) and value[0] == value[0]
    except TypeError:  # texts and numbers
        return False


def _is_output_config(value):
    return isinstance(value, dict) and all(
        k == "transform" and v in ("default", "pandas", "polars")
        for k, v in value.items()
    )


def _are_scales(value):
    return _is_vector("f")(value) and bool(np.isfinite(value).all())


# Whether a value is such as a fit gives the attribute, by its name.
ATTRIBUTES = {
    "n_features_in_": _is_count,
    "feature_names_in_": _is_vector("OU"),
    "history_": lambda value: isinstance(value, pd.DataFrame),
    "n_epochs_": _is_count,
    "best_epoch_": lambda value: value is None or _is_count(value),
    "best_validation_score_": lambda value: value is None or _is_number(value),
    "classes_": _are_classes,
    "multilabel_": lambda value: isinstance(value, (bool, np.bool_)),
    "_n_features_out": _is_count,
    "_y_ndim": lambda value: _is_int(value, 1, 2),
    "_y_mean": _are_scales,
    "_y_scale": lambda value: _are_scales(value) and math.isfinite(1 / value.min()),
    "_hub_config": lambda value: value is None or isinstance(value, dict),
    "_sklearn_output_config": _is_output_config,
}
