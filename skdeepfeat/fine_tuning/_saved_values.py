"""Parameters and attributes of a saved estimator as JSON, and their checks.

The file may come from a stranger. So it sets only what a fit sets, and whoever loads it
decides where features are kept, which addresses are read and how large an image may be.
"""

import dataclasses
import json
import math
import numbers
import os
import re

import numpy as np
import pandas as pd
import torch
from sklearn.base import is_classifier
from torch import nn

from .._utils._optional import loaded_class
from .._utils._parameter_errors import is_int
from .._utils._preprocessing import MAX_SIDE
from .._utils._shown import shown
from ..exceptions import BadFileError
from ..networks import read_hub_config, read_preprocessing
from ..training import is_history, is_table

# They depend on the machine and not on the fit, may hold a password, or are code.
NOT_SAVED = ("cache", "checkpoint", "storage_options", "teacher")

_DEVICES = r"(auto|cpu|cuda(:\d{1,2})?|mps|xpu(:\d{1,2})?)"

# For `classes_` and other arrays.
# The size of a longer text overflows in NumPy 2.0.
_DTYPES = r"[<>|=]?([biufU]\d{1,8}|O)"
_MAX_ARRAY_BYTES = 256 * 2**20


# -- Parameters


def encode_parameter(name, value):
    """Return a parameter as JSON types.

    Tuples and arrays become lists, NumPy's numbers become Python's, and paths, devices
    and torchvision's weights become text. A network becomes a mark with its name.

    Raises
    ------
    ValueError
        If the value is code or a handle.
    """
    if name == "model" and isinstance(value, nn.Module):
        return {"module": type(value).__name__}
    if name == "preprocessing" and value is not None:
        value = dataclasses.asdict(read_preprocessing(value))
    if name == "class_weight":
        value = _with_pairs(value)
    return _as_json(
        value,
        f"The {name!r} parameter must consist of numbers, text, paths and None to be "
        "saved, as the file holds no code. Got {} instead. Set it to something else "
        f"first, with set_params({name}=...), or use pickle.",
    )


def decode_parameters(cls, parameters):
    """Return the parameters of a class that are taken from a file.

    Parameters
    ----------
    cls : type
    parameters : dict of str to JSON types
        `model` may be a network that the caller has put there.

    Raises
    ------
    BadFileError
    """
    unknown = sorted(parameters.keys() - set(cls._get_param_names()))
    if unknown:
        raise BadFileError(f"{cls.__name__} has no parameters {shown(unknown)}.")
    taken = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in parameters.items()
        if name not in NOT_SAVED
    }
    if taken.get("preprocessing") is not None:
        taken["preprocessing"] = read_preprocessing(taken["preprocessing"])
    if "class_weight" in taken:
        taken["class_weight"] = _without_pairs(parameters["class_weight"])
    default = cls().max_pixels
    if taken.get("max_pixels") is None or taken["max_pixels"] > default:
        taken.pop("max_pixels", None)
    return taken


def _with_pairs(class_weight):
    """Return weights of classes without dicts, as the keys of JSON are text."""
    if isinstance(class_weight, dict):
        return {"pairs": list(map(list, class_weight.items()))}
    if isinstance(class_weight, list):
        return [_with_pairs(one) for one in class_weight]
    return class_weight


def _without_pairs(class_weight):
    if isinstance(class_weight, dict):
        return dict(class_weight["pairs"])
    if isinstance(class_weight, list):
        return [_without_pairs(one) for one in class_weight]
    return class_weight


def _as_json(value, message):
    """Return a value as JSON types, or raise with what it has in a message."""
    try:
        return json.loads(json.dumps(value, default=_to_json))
    except TypeError as error:
        raise ValueError(message.format(error)) from error


def _to_json(value):
    """Return what `json` cannot write in a form that it can."""
    if isinstance(value, (np.generic, np.ndarray)):
        plain = value.tolist()
        if not isinstance(plain, np.generic):  # as a longdouble is
            return plain
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, loaded_class("torchvision.models", "WeightsEnum")):
        return value.name
    raise TypeError(f"an object of type {type(value).__name__}")


def check_estimator(estimator):
    """Raise if a new estimator has parameters that a fit would refuse.

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
    # On Windows, this could send a request to another machine.
    if str(estimator.weights).startswith(("\\\\", "//")):
        raise _wrong("the parameter 'weights'", estimator.weights)


def _are_sides(size):
    sides = size if isinstance(size, (tuple, list, np.ndarray)) else [size]
    return size is None or all(_is_int(side, 1, MAX_SIDE) for side in sides)


# -- Attributes


def encode_attribute(name, value):
    """Return a fitted attribute as JSON types.

    Raises
    ------
    ValueError
        If the attribute is an array of an unusual type.
    """
    if isinstance(value, pd.DataFrame):
        value = value.to_dict("records")
    elif isinstance(value, np.ndarray):
        # Python writes a float such that it reads the same number.
        value = {"dtype": value.dtype.str, "values": value.tolist()}
    return _as_json(
        value,
        f"The attribute {name!r} cannot be saved, as the file holds no code: it has "
        "{}. Use pickle.",
    )


def decode_attributes(estimator, attributes):
    """Return fitted attributes, each of the type and shape that a fit gives it.

    Raises
    ------
    BadFileError
    """
    found = {}
    for name, value in attributes.items():
        if name not in ATTRIBUTES:
            raise BadFileError(f"it has {shown(name)}, which no fit sets.")
        if isinstance(value, dict) and value.keys() == {"dtype", "values"}:
            value = _decode_array(**value)
        if not ATTRIBUTES[name](value):
            raise _wrong(f"the attribute {name!r}", value)
        found[name] = value
    needed = {"n_features_in_", "history_", "n_epochs_", "_n_features_out"}
    if is_classifier(estimator):
        needed |= {"classes_", "multilabel_"}
    else:
        needed |= {"_y_ndim", "_y_mean", "_y_scale"}
    if missing := sorted(needed - found.keys()):
        raise BadFileError(f"it has no {missing[0]!r}.")
    for name in found.keys() & set(TABLES):
        found[name] = pd.DataFrame(found[name])
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


def _decode_array(dtype, values):
    """Return a one-dimensional array that does not fill the memory."""
    is_plain = all(isinstance(value, (str, numbers.Real)) for value in values)
    found = np.dtype(dtype) if re.fullmatch(_DTYPES, dtype) and is_plain else None
    if found is None or found.itemsize * len(values) > _MAX_ARRAY_BYTES:
        raise BadFileError(f"it holds {len(values)} values of type {shown(dtype)}.")
    return np.array(values, found)


def check_outputs(estimator):
    """Raise if head, neck and targets do not match.

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
    probes = estimator.probe_predictions_
    if probes is not None:
        n_epochs, fits = len(estimator.history_), probes.dtype == np.float32
        fits = fits and probes.ndim == 3 and probes.shape[2] == wanted
        if not fits or not 0 < len(probes) <= n_epochs:
            raise _wrong("probe_predictions_ of shape", probes.shape)


def _wrong(what, value):
    return BadFileError(f"it has {what} {shown(value)}, which no fit gives.")


def _is_int(value, low, high):
    return is_int(value) and low <= value <= high


def _is_count(value):
    return _is_int(value, 0, 2**53)


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_vector(kinds):
    def check(value):
        is_array = isinstance(value, np.ndarray)
        return is_array and len(value) > 0 and value.dtype.kind in kinds

    return check


def _are_classes(value):
    """Return whether labels are sorted and distinct, as after a fit."""
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


# Fitted attributes that are data frames.
TABLES = ("history_", "compression_report_", "compression_summary_")

# Checks that `fit` can give the attribute such a value.
ATTRIBUTES = {
    "n_features_in_": _is_count,
    "feature_names_in_": _is_vector("OU"),
    "history_": is_history,
    "n_epochs_": _is_count,
    "best_epoch_": lambda value: value is None or _is_count(value),
    "best_validation_score_": lambda value: value is None or _is_number(value),
    "classes_": _are_classes,
    "multilabel_": lambda value: isinstance(value, (bool, np.bool_)),
    "_n_features_out": _is_count,
    "_takes_rows": lambda value: isinstance(value, bool),
    "_y_ndim": lambda value: _is_int(value, 1, 2),
    "_y_mean": _are_scales,
    "_y_scale": lambda value: _are_scales(value) and math.isfinite(1 / value.min()),
    "_hub_config": lambda value: value is None or isinstance(value, dict),
    "_fitted_model": lambda value: value is None or isinstance(value, str),
    "_sklearn_output_config": _is_output_config,
    "compression_report_": is_table,
    "compression_summary_": is_table,
}
