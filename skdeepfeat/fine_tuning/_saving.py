"""Fitted estimators as files without code: safetensors, with JSON in the header.

Parameters and fitted attributes are plain JSON, networks are tensors. How a network
computes is not in the file: it is built again from the `model` parameter.

Pickles hold the networks in the same form. So they contain no class of torchvision or
timm that another version may lack, and skops, which does not know tensors, takes them.
"""

import contextlib
import copy
import importlib.metadata
import json
import os

import pandas as pd
import torch
from torch import nn

from .._utils._address import check_local
from .._utils._plain_file import read_file_of_user, write_atomically
from .._utils._printable import printable
from .._utils._random import seeded
from .._utils._shown import shown
from ..exceptions import BadFileError, WeightsNotFoundError
from ..networks import apply_changes, changes_of, module_on_cpu
from ..training import dump_tensors, named_tensors, parse_tensors
from ._saved_values import (
    ATTRIBUTES,
    NOT_SAVED,
    TABLES,
    check_estimator,
    check_outputs,
    decode_attributes,
    decode_parameters,
    encode_attribute,
    encode_parameter,
)

_FORMAT = 2

# Types between which a network may have been converted, with `half` for example.
_FLOATS = {torch.bfloat16, torch.float16, torch.float32, torch.float64}

# The tensor of `probe_predictions_`.
_PROBES = "probe_predictions"

# Layers take memory even without values, and a malicious file may declare many.
_MAX_HEAD_LAYERS = 10_000

# The layers of a head, and the arguments of each.
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
        has a value that `fit` would refuse.
    """
    check_local(path, "path")
    parameters = estimator.get_params(deep=False)
    attributes = vars(estimator)
    header = {
        "class": type(estimator).__name__,
        "parameters": {
            name: encode_parameter(name, value)
            for name, value in parameters.items()
            if name not in NOT_SAVED
        },
        "attributes": {
            name: encode_attribute(name, attributes[name])
            for name in ATTRIBUTES
            if name in attributes
        },
    }
    # The file may be the only copy, so `load` must accept it.
    estimator._validate_params()
    networks = {"head": estimator.head_, "body": estimator.body_}
    if isinstance(estimator.model, nn.Module):
        # The head belongs to these weights, and a later fit begins with them.
        networks["model"] = estimator.model
    write_atomically(path, _dump(header, networks, estimator.probe_predictions_))


def load_estimator(path, cls, model=None):
    """Read what `save_estimator` wrote. No connection is opened for it.

    Parameters
    ----------
    path : path-like
    cls : type
        The class of the estimator.
    model : Module or None, default=None
        The user's own network, if the file was saved with one. It is not changed.

    Returns
    -------
    estimator : instance of `cls`

    Raises
    ------
    BadFileError
        If the file is damaged, of another format or another class, is not a saved
        estimator, or has values that no fit gives.
    ValueError
        If `model` is missing, superfluous or another network.
    """
    check_local(path, "path")
    content = read_file_of_user(path)
    with _explained(f"The file {shown(os.fspath(path), 255)}"):
        header, tensors = _parse(content)
        if header["class"] != cls.__name__:
            name = printable(header["class"])[:80]
            raise BadFileError(f"it holds a {name}. Use {name}.load instead.")
        described = dict(header["parameters"])
        saved_model = described.get("model")
    given = _checked_model(saved_model, model)
    with _explained(f"The file {shown(os.fspath(path), 255)}"):
        if given is not None:
            network = copy.deepcopy(given)
            changes = _changes_in(header, "model")
            if changes != changes_of(network):
                apply_changes(network, changes)
            described["model"] = _fill(network, _with_prefix(tensors, "model"))
        estimator = cls(**decode_parameters(cls, described))
        check_estimator(estimator)
        vars(estimator).update(decode_attributes(estimator, header["attributes"]))
        _check_prefixes(header, tensors, given is not None)
        _restore_networks(estimator, header, tensors)
        found = tensors.get(_PROBES)
        estimator.probe_predictions_ = None if found is None else found.numpy()
        check_outputs(estimator)
    return estimator


@contextlib.contextmanager
def _explained(what):
    """Turn all errors about a file into one kind of error."""
    try:
        yield
    except (WeightsNotFoundError, ImportError, MemoryError):
        raise  # something is missing on this machine, and the file is not to blame
    except Exception as error:
        words = str(error)
        if not isinstance(error, ValueError):
            words = f"it is damaged ({type(error).__name__}: {words[:200]})."
        raise BadFileError(f"{what} cannot be loaded: {words[:500]}") from error


def _checked_model(described, model):
    """Return the user's network, or None if the file names one."""
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
            "The 'model' parameter of load must be a "
            f"{printable(described['module'])[:80]}, "
            "because the file was saved with a network of your own: it holds the "
            f"weights, not the code. Got {got} instead."
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
        On the CPU, and without networks other than a `model` of the user's own.
    """
    state = dict(state)
    if isinstance(state.get("model"), nn.Module):
        state["model"] = module_on_cpu(state["model"])
    if "head_" in state:
        networks = {"head": state.pop("head_"), "body": state.pop("body_")}
        tables = {
            name: encode_attribute(name, state.pop(name))
            for name in TABLES
            if name in state
        }
        state["_fitted"] = _dump({"tables": tables}, networks)
    return state


def unpack_fitted(estimator):
    """Set the attributes that `pack_fitted` packed."""
    content = vars(estimator).pop("_fitted", None)
    if content is None:
        return
    with _explained(f"The pickled {type(estimator).__name__}"):
        header, tensors = _parse(content)
        for name, rows in header["tables"].items():
            setattr(estimator, name, pd.DataFrame(rows))
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
    if len(header["head"]) > _MAX_HEAD_LAYERS:
        raise BadFileError(f"its head has more than {_MAX_HEAD_LAYERS} layers.")
    head = nn.Sequential(*map(_head_layer, header["head"]))
    content = _with_prefix(tensors, "head")
    if any(tensor.dtype != torch.float32 for tensor in content.values()):
        raise BadFileError("its head is not of float32.")
    estimator.head_ = at_rest(_fill(head, content))
    estimator.body_ = None
    if type(header["has_body"]) is not bool:
        raise BadFileError(f"it has a body: {shown(header['has_body'])}.")
    if header["has_body"]:
        # Not `neck.trainable`, which would need the pretrained weights.
        neck = estimator._resolve_neck(needs_weights=False)
        content = _with_prefix(tensors, "body")
        if neck.takes_rows:
            estimator.body_ = at_rest(_fill(copy.deepcopy(neck.module), content))
            return
        changes = _changes_in(header, "body")[len(changes_of(neck.spec.module)) :]
        # A small file may name a network of any size.
        if (empty := neck.empty_network()) is not None:
            _check_tensors(apply_changes(empty, changes), content)
            if changes:
                neck.check_network(empty)
        if sum(neck.n_features()) != estimator._n_features_out:
            raise BadFileError(
                f"its head takes {estimator._n_features_out} features, but its network "
                f"returns {sum(neck.n_features())}."
            )
        with seeded(0):
            body = apply_changes(neck.spec.build(), changes)
        estimator.body_ = at_rest(_fill(body, content))


def _head_layer(described):
    """Return a layer without memory, so that a small file makes no large layer."""
    kind, sizes = described
    make, names = _HEAD_LAYERS[kind]
    if sizes.keys() != set(names):
        raise BadFileError(f"its head has a {kind} of {shown(sorted(sizes))}.")
    with torch.device("meta"):
        return make(**sizes)


def at_rest(network):
    """Return a module on the CPU, in evaluation mode and without gradients."""
    # Gradients are as large as the weights, and a search keeps many estimators.
    network.zero_grad(set_to_none=True)
    return network.cpu().eval().requires_grad_(False)


def _changes_in(header, prefix):
    """Return the changes of the layers of a network."""
    return header.get("changes", {}).get(prefix, [])


def _check_prefixes(header, tensors, has_model):
    """Raise if there are tensors or changes of a part that cannot have them."""
    present = {"head": True, "body": header["has_body"], "model": has_model}
    names = {name for name, is_there in present.items() if is_there}
    unknown = sorted({name.partition(".")[0] for name in tensors} - {*names, _PROBES})
    unknown += sorted(header.get("changes", {}).keys() - (names - {"head"}))
    if unknown:
        raise BadFileError(
            f"it has unexpected tensors or changed layers of {shown(unknown[0])}."
        )


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
        tied = replaced.setdefault(id(old), new)
        if torch.equal(tied, new):
            new = tied
        owner, _, last = name.rpartition(".")
        # Not by `register_parameter`: recurrent layers keep lists of their weights.
        setattr(network.get_submodule(owner), last, new)
    return network


def _check_tensors(network, tensors):
    """Return the tensors of a network, if the others have the same names and shapes."""
    own = named_tensors(network, with_duplicates=True)
    differing = sorted(
        name
        for name in own.keys() | tensors.keys()
        if name not in own
        or name not in tensors
        or own[name].shape != tensors[name].shape
        or not _may_stand_for(tensors[name].dtype, own[name].dtype)
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
        # A whole network may have been converted, but not a single layer.
        raise BadFileError(
            f"its tensors are of several types: {shown(sorted(map(str, types)))}."
        )
    return own


def _may_stand_for(found, wanted):
    """Return whether a network's tensor may have been converted to the found type."""
    return found == wanted or {found, wanted} <= _FLOATS


# -- Bytes


def _dump(header, networks, probes=None):
    """Return a safetensors file of networks, some None, with a header."""
    head, has_body = _describe_head(networks["head"]), networks["body"] is not None
    networks = {prefix: one for prefix, one in networks.items() if one is not None}
    changes = {prefix: changes_of(network) for prefix, network in networks.items()}
    tensors = {
        f"{prefix}.{name}": tensor
        for prefix, network in networks.items()
        for name, tensor in named_tensors(network, with_duplicates=True).items()
    }
    if probes is not None:
        tensors[_PROBES] = torch.from_numpy(probes)
    # The memory format of weights decides how fast convolutions are.
    channels_last = [k for k, v in tensors.items() if _is_channels_last(v)]
    text = json.dumps(
        {
            "format": _FORMAT,
            "version": importlib.metadata.version("skdeepfeat"),
            **header,
            "head": head,
            "has_body": has_body,
            "changes": {k: v for k, v in changes.items() if v},
            "channels_last": channels_last,
        }
    )
    return dump_tensors(tensors, text)


def _parse(content):
    """Return the header and the tensors of `_dump`."""
    text, tensors = parse_tensors(content)
    header = json.loads(text)
    if header["format"] != _FORMAT:
        raise BadFileError(
            f"it was written by skdeepfeat {printable(header.get('version'))[:80]} in "
            f"format {shown(header['format'])}, and this version reads format "
            f"{_FORMAT}. Use the version that wrote it, or fit again."
        )
    for name in set(header["channels_last"]):
        there = torch.empty_like(tensors[name], memory_format=torch.channels_last)
        tensors[name] = there.copy_(tensors[name])
    return header, tensors


def _is_channels_last(tensor):
    if tensor.ndim != 4 or tensor.is_contiguous():
        return False
    return tensor.is_contiguous(memory_format=torch.channels_last)
