"""Fitted estimators as files without code: safetensors, and JSON in its header.

An estimator is told apart into parameters and fitted attributes, which JSON can hold
once types that it lacks are named, and networks, of which the tensors are kept. How a
network computes is not in the file: it is built anew from the `model` parameter.

Pickles hold the networks in the same form, so they carry no class of torchvision or
timm that another version may lack, and skops, which knows no tensors, takes them too.
"""

import contextlib
import copy
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import re

import numpy as np
import pandas as pd
import torch
from torch import nn
from torchvision.models import WeightsEnum, get_weight

from .._utils._atomic_file import write_atomically
from .._utils._preprocessing import Preprocessing
from .._utils._random import seeded
from .._utils._shown import shown
from ..exceptions import BadFileError, WeightsNotFoundError
from ..networks import module_on_cpu, read_preprocessing
from ..training._tensor_file import dump_tensors, parse_tensors
from ._saved_values import (
    ATTRIBUTES,
    NOT_SAVED,
    check_attributes,
    check_estimator,
    check_outputs,
    check_parameters,
)

__all__ = [
    "load_estimator",
    "pack_fitted",
    "save_estimator",
    "unpack_fitted",
]

# A file of a higher format is refused, one of a lower read as it was meant.
_FORMAT = 1

_MAX_ARRAY_BYTES = 256 * 2**20

# Of the columns of `history_`; text is `object` up to pandas 2, and `str` from 3 on.
_FRAME_TYPES = {one: one for one in ("bool", "float64", "int64", "object", "str")}

# The layers that a head consists of, and what each is built from.
_HEAD_LAYERS = {
    "Dropout": (nn.Dropout, ("p",)),
    "Linear": (nn.Linear, ("in_features", "out_features")),
    "ReLU": (nn.ReLU, ()),
}


# -- Estimators


def save_estimator(path, estimator):
    """Write a fitted estimator.

    Parameters
    ----------
    path : path-like
    estimator : BaseEstimator
        With `head_` and `body_`.

    Raises
    ------
    ValueError
        If a parameter is code or a handle, which no file without code can hold, or
        was set to what no fit takes.
    """
    parameters = estimator.get_params(deep=False)
    parameters = {k: v for k, v in parameters.items() if k not in NOT_SAVED}
    attributes = {k: v for k, v in vars(estimator).items() if k in ATTRIBUTES}
    header = {
        "class": type(estimator).__name__,
        "parameters": {k: _encode_parameter(k, v) for k, v in parameters.items()},
        "attributes": {k: _encode_attribute(k, v) for k, v in attributes.items()},
        "head": _describe_head(estimator.head_),
        "has_body": estimator.body_ is not None,
    }
    # What load would refuse is not written: the file may be all that is kept.
    estimator._validate_params()
    networks = {"head": estimator.head_, "body": estimator.body_}
    if isinstance(estimator.model, nn.Module):
        # The head belongs to these weights, and so does a later fit.
        networks["model"] = estimator.model
    write_atomically(path, _dump(header, networks))


def load_estimator(path, cls, model=None):
    """Read what `save_estimator` wrote. No connection is opened for it.

    Parameters
    ----------
    path : path-like
    cls : type
        The estimator's class.
    model : Module or None, default=None
        The user's own network, if the file was saved with one. It is not changed.

    Returns
    -------
    estimator : instance of `cls`

    Raises
    ------
    BadFileError
        If the file is damaged, something else, of a newer version or another class, or
        says what no fit would.
    ValueError
        If `model` is missing, superfluous or another network.
    """
    content = pathlib.Path(path).read_bytes()
    with _explained(f"The file {os.fspath(path)!r}"):
        header, tensors = _parse(content)
        if header["class"] != cls.__name__:
            name = f"{header['class']!s:.80}"
            raise BadFileError(f"it holds a {name}. Use {name}.load instead.")
        described = dict(header["parameters"])
        of_user = described.get("model")
    given = _checked_model(of_user, model)
    with _explained(f"The file {os.fspath(path)!r}"):
        if given is not None:
            described["model"] = None
        parameters = check_parameters(cls, _decode_named(described))
        if given is not None:
            network = copy.deepcopy(given)
            _fill(network, _with_prefix(tensors, "model"))
            parameters["model"] = network
        estimator = cls(**parameters)
        check_estimator(estimator)
        attributes = _decode_named(header["attributes"])
        vars(estimator).update(check_attributes(estimator, attributes))
        _restore_networks(estimator, header, tensors)
        check_outputs(estimator)
    return estimator


@contextlib.contextmanager
def _explained(what):
    """Turn whatever goes wrong with a file into one error."""
    try:
        yield
    except (WeightsNotFoundError, ImportError, MemoryError):
        raise  # what the network needs is not on this machine
    except Exception as error:
        words = str(error)
        if not isinstance(error, ValueError):
            words = f"it is damaged ({type(error).__name__}: {words[:200]})."
        raise BadFileError(f"{what} cannot be loaded: {words[:500]}") from error


def _checked_model(described, model):
    """Return the user's network, or None where the file names one."""
    if not (isinstance(described, dict) and "module" in described):
        if model is not None:
            raise ValueError(
                "The 'model' parameter of load must be None: the file names its "
                f"network, {shown(described)}. Got {type(model).__name__} instead."
            )
        return None
    if not isinstance(model, nn.Module):
        got = None if model is None else type(model).__name__
        raise ValueError(
            f"The 'model' parameter of load must be a {described['module']!s:.80}, as "
            "the file was saved with a network of your own: it holds the weights, not "
            f"the code. Got {got} instead."
        )
    return model


# -- Pickles


def pack_fitted(state):
    """Return the state of an estimator in a form that every pickler takes.

    Parameters
    ----------
    state : dict
        The attributes. It is not changed.

    Returns
    -------
    dict
        On the CPU, and without networks but for a `model` of the user's own.
    """
    state = dict(state)
    if isinstance(state.get("model"), nn.Module):
        state["model"] = module_on_cpu(state["model"])
    if "head_" in state:
        networks = {"head": state.pop("head_"), "body": state.pop("body_")}
        header = {
            "head": _describe_head(networks["head"]),
            "has_body": networks["body"] is not None,
            "history": _encode(state.pop("history_")),
        }
        state["_fitted"] = _dump(header, networks)
    return state


def unpack_fitted(estimator):
    """Put back what `pack_fitted` packed, in an estimator that has all the rest."""
    content = vars(estimator).pop("_fitted", None)
    if content is None:
        return
    with _explained(f"The pickled {type(estimator).__name__}"):
        header, tensors = _parse(content)
        estimator.history_ = _decode(header["history"])
        _restore_networks(estimator, header, tensors)


# -- Networks


def _describe_head(head):
    described = []
    for layer in head:
        kind = type(layer).__name__
        described.append(
            [kind, {name: getattr(layer, name) for name in _HEAD_LAYERS[kind][1]}]
        )
    return described


def _restore_networks(estimator, header, tensors):
    """Set `head_` and `body_`."""
    head = nn.Sequential(*map(_head_layer, header["head"]))
    content = _with_prefix(tensors, "head")
    if any(tensor.dtype != torch.float32 for tensor in content.values()):
        raise BadFileError("its head is not of float32.")
    estimator.head_ = _at_rest(_fill(head, content))
    estimator.body_ = None
    if type(header["has_body"]) is not bool:
        raise BadFileError(f"it has a body: {shown(header['has_body'])}.")
    if header["has_body"]:
        # Not `neck.trainable`, which would want the pretrained weights first.
        neck = estimator._resolve_neck(needs_weights=False)
        content = _with_prefix(tensors, "body")
        # A file of some bytes may name a network of any size.
        if (empty := neck.empty_network()) is not None:
            _check_tensors(empty, content)
        with seeded(0):
            body = neck.spec.build()
        estimator.body_ = _at_rest(_fill(body, content))


def _head_layer(described):
    """Return a layer without numbers: those in the file decide how much memory."""
    kind, sizes = described
    make, names = _HEAD_LAYERS[kind]
    if sizes.keys() != set(names):
        raise BadFileError(f"its head has a {kind} of {shown(sorted(sizes))}.")
    with torch.device("meta"):
        return make(**sizes)


def _at_rest(network):
    return network.eval().requires_grad_(False)


def _with_prefix(tensors, prefix):
    start = len(prefix) + 1
    return {k[start:]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def _fill(network, tensors):
    """Replace the parameters and buffers of a network by those of the same names."""
    own = _check_tensors(network, tensors)
    replaced = {}
    for name, old in own.items():
        new = tensors[name]
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        twin = replaced.setdefault(id(old), new)
        if torch.equal(twin, new):
            new = twin  # tied weights stay tied
        owner, _, last = name.rpartition(".")
        # Not through the tables of parameters: recurrent layers keep lists beside them.
        setattr(network.get_submodule(owner), last, new)
    return network


def _check_tensors(network, tensors):
    """Return a network's own tensors, if the others are like them."""
    own = _named_tensors(network)
    differing = sorted(
        name
        for name in own.keys() | tensors.keys()
        if name not in own
        or name not in tensors
        or own[name].shape != tensors[name].shape
        or own[name].is_floating_point() != tensors[name].is_floating_point()
    )
    if differing:
        raise BadFileError(
            f"its tensors are not those of this {type(network).__name__}; "
            f"{len(differing)} are missing or differ in shape, the first is "
            f"{shown(differing[0])}. Load it with the same 'model' and the same "
            "versions of torchvision and timm."
        )
    types = {(own[name].dtype, tensors[name].dtype) for name in own}
    if len(types) > len({here for here, _ in types}):
        # A network may have been converted as a whole, but no layer alone.
        raise BadFileError(
            f"its tensors are of several types: {shown(sorted(map(str, types)))}."
        )
    return own


def _named_tensors(network):
    """Return all that training changes, also what `state_dict` would leave out."""
    parameters = network.named_parameters(remove_duplicate=False)
    return dict([*parameters, *network.named_buffers(remove_duplicate=False)])


# -- Bytes


def _dump(header, networks):
    """Return a safetensors file of networks, some None, with a header."""
    tensors = {
        f"{prefix}.{name}": tensor.detach().cpu()
        for prefix, network in networks.items()
        if network is not None
        for name, tensor in _named_tensors(network).items()
    }
    # Convolutions choose their code, and with it their speed, by how weights lie in
    # memory.
    channels_last = [k for k, v in tensors.items() if _is_channels_last(v)]
    # Copies, because safetensors refuses tensors that share memory.
    tensors = {
        name: tensor.contiguous().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    text = json.dumps(
        {
            "format": _FORMAT,
            "version": importlib.metadata.version("skdeepfeat"),
            **header,
            "channels_last": channels_last,
        }
    )
    return dump_tensors(tensors, text)


def _parse(content):
    """Return the header and the tensors of `_dump`."""
    text, tensors = parse_tensors(content)
    header = json.loads(text)
    newest = header["format"]
    if type(newest) is not int or newest > _FORMAT:
        raise BadFileError(
            f"it was written by the newer skdeepfeat {header.get('version')!s:.80} "
            f"(format {shown(newest)}). Update skdeepfeat."
        )
    for name in header["channels_last"]:
        there = torch.empty_like(tensors[name], memory_format=torch.channels_last)
        tensors[name] = there.copy_(tensors[name])
    return header, tensors


def _is_channels_last(tensor):
    if tensor.ndim != 4:
        return False
    like = torch.empty_like(
        tensor, device="meta", memory_format=torch.channels_last
    ).stride()
    # A width, height or number of channels of 1 can look like both.
    plain = torch.empty_like(
        tensor, device="meta", memory_format=torch.contiguous_format
    ).stride()
    return tensor.stride() == like != plain


# -- Values


def _encode_parameter(name, value):
    if name == "model" and isinstance(value, nn.Module):
        return {"module": type(value).__name__}
    if name == "preprocessing" and callable(value):
        value = read_preprocessing(value)
    try:
        return _encode(value)
    except TypeError as error:
        raise ValueError(
            f"The {name!r} parameter must be made of numbers, text, paths and None to "
            f"be saved, as the file holds no code. Got {error} instead. Put something "
            f"else in its place before, set_params({name}=...), or use pickle."
        ) from error


def _encode_attribute(name, value):
    try:
        return _encode(value)
    except TypeError as error:
        raise ValueError(
            f"The attribute {name!r} cannot be saved, as the file holds no code: it "
            f"has {error}. Use pickle."
        ) from error


def _encode(value):
    """Return a value as JSON types; a dict with one key names a type JSON lacks.

    Raises
    ------
    TypeError
        With what cannot be encoded, in words.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    for name, (matches, encode, _) in _CODECS.items():
        if matches(value):
            return {name: encode(value)}
    raise TypeError(f"an object of type {type(value).__name__}")


def _decode(value):
    if not isinstance(value, dict):
        return value
    [(name, content)] = value.items()
    if name not in _CODECS:
        raise BadFileError(f"it holds a value of the unknown type {shown(name)}.")
    return _CODECS[name][2](content)


def _decode_named(values):
    found = {}
    for name, value in values.items():
        try:
            found[name] = _decode(value)
        except BadFileError:
            raise
        except Exception as error:
            raise BadFileError(
                f"its {shown(name)} cannot be read ({type(error).__name__}: "
                f"{str(error)[:200]})."
            ) from error
    return found


def _encode_all(values):
    return [_encode(value) for value in values]


def _decode_all(values):
    return [_decode(value) for value in values]


def _encode_array(array):
    plain = array.dtype.kind in "biuU" or array.dtype in (
        np.float16,
        np.float32,
        np.float64,
    )
    if not plain and array.dtype != object:
        raise TypeError(f"an array of type {array.dtype}")
    # Python writes every float so that it reads the same again.
    values = array.ravel().tolist()
    return [array.dtype.str, list(array.shape), _encode_all(values)]


def _decode_array(content):
    dtype, shape, values = content
    array = np.empty(len(values), _checked_dtype(dtype, len(values)))
    for i, value in enumerate(values):
        # One by one: an element that is a sequence is no axis.
        array[i] = _decode(value)
    return array.reshape(shape)


def _checked_dtype(text, n):
    """Return a dtype that a value can have, and that fills no memory."""
    dtype = np.dtype(text) if re.fullmatch(r"[<>|=]?([biufU]\d+|O)", text) else None
    if dtype is None or dtype.itemsize * n > _MAX_ARRAY_BYTES:
        raise BadFileError(f"it holds {n} values of type {shown(text)}.")
    return dtype


def _encode_frame(frame):
    return [
        [name, str(frame[name].dtype), _encode_all(frame[name].tolist())]
        for name in frame.columns
    ]


def _decode_frame(content):
    return pd.DataFrame(
        {
            name: pd.Series(_decode_all(values), dtype=_FRAME_TYPES[dtype])
            for name, dtype, values in content
        }
    )


def _encode_preprocessing(value):
    fields = dataclasses.fields(value)
    return {field.name: _encode(getattr(value, field.name)) for field in fields}


def _decode_preprocessing(content):
    return Preprocessing(**{name: _decode(value) for name, value in content.items()})


# Name in the file -> whether a value is such, to JSON types, and back. The first that
# matches counts: NumPy's strings and floats are Python's as well.
_CODECS = {
    "scalar": (
        lambda value: isinstance(value, np.generic),
        lambda value: _encode_array(np.asarray(value)),
        lambda content: _decode_array(content)[()],
    ),
    "array": (
        lambda value: isinstance(value, np.ndarray),
        _encode_array,
        _decode_array,
    ),
    "frame": (
        lambda value: isinstance(value, pd.DataFrame),
        _encode_frame,
        _decode_frame,
    ),
    "preprocessing": (
        lambda value: isinstance(value, Preprocessing),
        _encode_preprocessing,
        _decode_preprocessing,
    ),
    "list": (
        lambda value: isinstance(value, list),
        _encode_all,
        _decode_all,
    ),
    "tuple": (
        lambda value: isinstance(value, tuple),
        _encode_all,
        lambda content: tuple(_decode_all(content)),
    ),
    "dict": (
        lambda value: isinstance(value, dict),
        lambda value: [[_encode(k), _encode(v)] for k, v in value.items()],
        lambda content: {_decode(k): _decode(v) for k, v in content},
    ),
    "path": (
        lambda value: isinstance(value, pathlib.Path),
        os.fspath,
        pathlib.Path,
    ),
    "device": (
        lambda value: isinstance(value, torch.device),
        str,
        torch.device,
    ),
    "torchvision_weights": (
        lambda value: isinstance(value, WeightsEnum),
        str,
        get_weight,
    ),
}
