"""Fitted estimators as files without code: safetensors, and JSON in its header.

An estimator is told apart into parameters and fitted attributes, which JSON can hold
once types that it lacks are named, and networks, of which the tensors are kept. How a
network computes is not in the file: it is built anew from the `model` parameter.

Pickles hold the networks in the same form, so they carry no class of torchvision or
timm that another version may lack, and skops, which knows no tensors, takes them too.
"""

import copy
import dataclasses
import importlib.metadata
import json
import os
import pathlib

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch
import torch
from torch import nn
from torchvision.models import WeightsEnum, get_weight

from ._atomic_file import write_atomically
from ._fingerprint import digest_arrays, digest_bytes
from ._preprocessing import Preprocessing
from ._random import seeded

__all__ = [
    "load_estimator",
    "module_on_cpu",
    "pack_fitted",
    "save_estimator",
    "unpack_fitted",
]

# A file of a higher format is refused, one of a lower read as it was meant.
_FORMAT = 1

# Fitted attributes that are no plain values.
_NETWORKS = ("head_", "body_")

# scikit-learn's routing requests are objects of its own; they concern the next fit.
_NOT_SAVED = ("_metadata_request",)

# The layers that a head consists of, and what each is built from.
_HEAD_LAYERS = {
    "Dropout": (nn.Dropout, ("p",)),
    "Linear": (nn.Linear, ("in_features", "out_features")),
    "ReLU": (nn.ReLU, ()),
}


class _Unreadable(Exception):
    """Why some bytes are no estimator, in words that go behind a colon."""


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
        If a parameter is code or a handle, which no file without code can hold.
    """
    parameters = estimator.get_params(deep=False)
    # There may be a password in it; and who loads a file has to say for himself that
    # addresses are to be read.
    parameters["storage_options"] = None
    attributes = {
        name: value
        for name, value in vars(estimator).items()
        if name not in (*parameters, *_NETWORKS, *_NOT_SAVED)
    }
    header = {
        "class": type(estimator).__name__,
        "parameters": {k: _encode_parameter(k, v) for k, v in parameters.items()},
        "attributes": {k: _encode_attribute(k, v) for k, v in attributes.items()},
        "head": _describe_head(estimator.head_),
        "has_body": estimator.body_ is not None,
    }
    networks = {"head": estimator.head_, "body": estimator.body_}
    if isinstance(estimator.model, nn.Module):
        # The head belongs to these weights, and so does a later fit.
        networks["model"] = estimator.model
    write_atomically(path, _dump(header, networks))


def load_estimator(path, cls, model=None):
    """Read what `save_estimator` wrote.

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
    ValueError
        If the file is damaged, something else, of a newer version or another class, or
        if `model` is missing, superfluous or another network.
    """
    content = pathlib.Path(path).read_bytes()
    try:
        header, tensors = _parse(content)
        if header["class"] != cls.__name__:
            raise _Unreadable(
                f"it holds a {header['class']}. Use {header['class']}.load instead."
            )
        given = _network_of_user(header["parameters"]["model"], model, tensors)
        described = dict(header["parameters"])
        if given is not None:
            del described["model"]
        parameters = _decode_named(described)
        if given is not None:
            parameters["model"] = given
        unknown = sorted(parameters.keys() - set(cls._get_param_names()))
        if unknown:
            raise _Unreadable(f"{cls.__name__} has no parameters {unknown}.")
        estimator = cls(**parameters)
        vars(estimator).update(_decode_named(header["attributes"]))
        _restore_networks(estimator, header, tensors)
    except _Unreadable as error:
        raise ValueError(
            f"The file {os.fspath(path)!r} cannot be loaded: {error}"
        ) from error
    return estimator


def _network_of_user(described, model, tensors):
    """Return a copy of the user's network with the saved weights, or None."""
    if not (isinstance(described, dict) and "module" in described):
        if model is not None:
            raise ValueError(
                "The 'model' parameter of load must be None: the file names its "
                f"network, {described!r}. Got {type(model).__name__} instead."
            )
        return None
    if not isinstance(model, nn.Module):
        got = None if model is None else type(model).__name__
        raise ValueError(
            f"The 'model' parameter of load must be a {described['module']}, as the "
            "file was saved with a network of your own: it holds the weights, not the "
            f"code. Got {got} instead."
        )
    network = copy.deepcopy(model)
    _fill(network, _with_prefix(tensors, "model"))
    return network


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
    try:
        header, tensors = _parse(content)
        estimator.history_ = _decode(header["history"])
        _restore_networks(estimator, header, tensors)
    except _Unreadable as error:
        name = type(estimator).__name__
        raise ValueError(f"The pickled {name} cannot be loaded: {error}") from error


def module_on_cpu(module):
    """Return a module, or a copy of it on the CPU where it is elsewhere.

    A pickle made beside a GPU is to be read on a machine without one.
    """
    tensors = [*module.parameters(), *module.buffers()]
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return module
    return copy.deepcopy(module).cpu()


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
    with seeded(0):
        head = nn.Sequential(
            *(_HEAD_LAYERS[kind][0](**sizes) for kind, sizes in header["head"])
        )
    estimator.head_ = _at_rest(_fill(head, _with_prefix(tensors, "head")))
    estimator.body_ = None
    if header["has_body"]:
        # Not `neck.trainable`, which would want the pretrained weights first.
        with seeded(0):
            body = estimator._resolve_neck(needs_weights=False).spec.build()
        estimator.body_ = _at_rest(_fill(body, _with_prefix(tensors, "body")))


def _at_rest(network):
    return network.eval().requires_grad_(False)


def _with_prefix(tensors, prefix):
    start = len(prefix) + 1
    return {k[start:]: v for k, v in tensors.items() if k.startswith(f"{prefix}.")}


def _fill(network, tensors):
    """Replace the parameters and buffers of a network by those of the same names."""
    own = _named_tensors(network)
    differing = sorted(
        name
        for name in own.keys() | tensors.keys()
        if name not in own
        or name not in tensors
        or own[name].shape != tensors[name].shape
    )
    if differing:
        raise _Unreadable(
            f"its tensors are not those of this {type(network).__name__}; "
            f"{len(differing)} are missing or differ in shape, the first is "
            f"{differing[0]!r}. Load it with the same 'model' and the same versions of "
            "torchvision and timm."
        )
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
    metadata = {"skdeepfeat": text, "digest": _digest(text, tensors)}
    return safetensors.torch.save(tensors, metadata)


def _parse(content):
    """Return the header and the tensors of `_dump`."""
    foreign = "it is damaged, or was not written by skdeepfeat"
    try:
        tensors = safetensors.torch.load(content)
        # The library gives the header of files only: eight bytes of length, then JSON.
        end = 8 + int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8:end])["__metadata__"]
        text, digest = metadata["skdeepfeat"], metadata["digest"]
        header = json.loads(text)
        newest = header["format"]
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _Unreadable(f"{foreign} ({type(error).__name__}: {error}).") from error
    if digest != _digest(text, tensors):
        raise _Unreadable(f"{foreign} (its checksum differs).")
    if newest > _FORMAT:
        raise _Unreadable(
            f"it was written by the newer skdeepfeat {header.get('version')} (format "
            f"{newest}). Update skdeepfeat."
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


def _digest(text, tensors):
    """Return the digest of a header and of tensors, whose order does not matter."""
    names = sorted(tensors)
    # As bytes, because numpy knows no bfloat16.
    arrays = [tensors[name].reshape(-1).view(torch.uint8).numpy() for name in names]
    shapes = [f"{name}{tensors[name].dtype}{[*tensors[name].shape]}" for name in names]
    return digest_bytes(
        "\n".join([text, *shapes, digest_arrays(*arrays)]).encode()
    ).hex()


# -- Values


def _encode_parameter(name, value):
    if name == "model" and isinstance(value, nn.Module):
        return {"module": type(value).__name__}
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
        raise _Unreadable(f"it holds a value of the unknown type {name!r}.")
    return _CODECS[name][2](content)


def _decode_named(values):
    try:
        return {name: _decode(value) for name, value in values.items()}
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise _Unreadable(
            f"it holds a value that cannot be read ({type(error).__name__}: {error})."
        ) from error


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
    array = np.empty(len(values), dtype)
    for i, value in enumerate(values):
        # One by one: an element that is a sequence is no axis.
        array[i] = _decode(value)
    return array.reshape(shape)


def _encode_frame(frame):
    return [
        [name, str(frame[name].dtype), _encode_all(frame[name].tolist())]
        for name in frame.columns
    ]


def _decode_frame(content):
    return pd.DataFrame(
        {
            name: pd.Series(_decode_all(values), dtype=dtype)
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
