"""A run of epochs as one file, from which it is resumed after a crash."""

import json
import os
import re

import numpy as np
import torch

from .._utils._address import check_local
from .._utils._plain_file import read_file_of_user, write_atomically
from .._utils._shown import shown
from .._utils._warn import warn
from ..exceptions import BadFileError
from ._state import named_tensors
from ._tensor_file import dump_tensors, parse_tensors

_FORMAT = "skdeepfeat-checkpoint-2"

_MAX_EPOCHS = 10**6


def save_checkpoint(path, run, header):
    """Write the state of a run in one piece, so that no reader sees half of it.

    A full disk does not end a training of hours: there is one warning per run, and the
    previous file is kept.

    Parameters
    ----------
    path : path-like
    run : TrainingRun
        Its `checkpoint_error` is set.
    header : dict of JSON types
        What identifies the fit that the run is a part of.

    Warns
    -----
    RuntimeWarning
        If the file cannot be written.
    """
    tensors, progress = _describe(run)
    text = json.dumps(progress | {"header": header})
    try:
        write_atomically(path, dump_tensors(tensors, text))
    except OSError as error:
        if run.checkpoint_error is None:
            warn(
                f"{checkpoint_in_words(path)} could not be written after epoch "
                f"{run.epoch}: {error}. The training continues, and tries again after "
                "each epoch.",
                RuntimeWarning,
            )
        run.checkpoint_error = error


def checkpoint_in_words(path):
    """Return the parameter and its value, as the beginning of a message."""
    return f"The 'checkpoint' file {shown(os.fspath(path), 255)}"


def _parts(run):
    """Return the weights of a run by the part of it that they belong to."""
    return {
        "model": named_tensors(run.model),
        "average": {} if run.average is None else run.average.tensors,
        "best": run.best_state or {},
    }


def _joined(parts):
    return {
        f"{part}.{name}": tensor
        for part, tensors in parts.items()
        for name, tensor in tensors.items()
    }


def _describe(run):
    """Return the tensors and the rest of a run's state."""
    tensors = _joined(_parts(run))
    if run.probes:
        tensors["probes"] = torch.from_numpy(np.stack(run.probes))
    for index, state in run.optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if value is not None:
                tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    return tensors, {
        "format": _FORMAT,
        "epoch": run.epoch,
        "history": run.history,
        "best_score": run.best_score,
        "best_epoch": run.best_epoch,
        "n_average": run.average.n_updates if run.average is not None else None,
        "scale": run.scaler.state_dict(),
    }


def read_checkpoint_header(path):
    """Return the header that a checkpoint was written with, or None without a file.

    Raises
    ------
    BadFileError
        If the file is damaged or something else.
    """
    try:
        return _read(path)[0]["header"]
    except FileNotFoundError:
        return None


def load_checkpoint(path, run):
    """Give a run the state that a checkpoint was written in.

    Parameters
    ----------
    path : path-like
    run : TrainingRun
        New, with the same model, optimizer and settings.

    Raises
    ------
    BadFileError
        If the file is damaged or something else.
    ValueError
        If it is a checkpoint of another network. The run is not changed in either case.
    """
    progress, tensors = _read(path)
    states = _states_of(path, progress, tensors, run)
    with torch.no_grad():
        for name, tensor in _joined(_parts(run)).items():
            tensor.copy_(tensors[name])
    if run.average is not None:
        run.average.n_updates = progress["n_average"] or 0
    best = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
    run.best_state = best or None
    run.probes = list(tensors["probes"].numpy()) if "probes" in tensors else []
    whole = run.optimizer.state_dict()
    learned = run.learned_parameters()
    whole["state"] = {
        index: {key: _ordered_as(learned[index], one) for key, one in state.items()}
        for index, state in states.items()
    }
    run.optimizer.load_state_dict(whole)
    run.epoch = progress["epoch"]
    run.history = progress["history"]
    run.best_score, run.best_epoch = progress["best_score"], progress["best_epoch"]
    run.scaler.load_state_dict(progress["scale"])


def _states_of(path, progress, tensors, run):
    """Return the states of the optimizer, if all tensors have the shapes of the run."""
    parts = _parts(run)
    if any(name.startswith("best.") for name in tensors):
        parts["best"] = parts["model"]
    wanted = {name: tensor.shape for name, tensor in _joined(parts).items()}
    if "probes" in tensors:
        wanted["probes"] = (progress["epoch"], *tensors["probes"].shape[-2:])
    learned = run.learned_parameters()
    states = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"optimizer\.(\d{1,9})\.(\w+)", name)
        if found and int(found[1]) < len(learned):
            # A count of steps, or a tensor with the shape of the parameter.
            like = learned[int(found[1])].shape
            wanted[name] = tensor.shape if tensor.ndim == 0 else like
            states.setdefault(int(found[1]), {})[found[2]] = tensor
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if progress["scale"].keys() != run.scaler.state_dict().keys():
        shapes["precision"] = None
    if shapes != wanted:
        names = sorted(dict(shapes.items() ^ wanted.items()))
        raise ValueError(
            f"{checkpoint_in_words(path)} belongs to another network: "
            f"{shown(names[0])} and {len(names) - 1} more of its tensors differ from "
            "those of this one. Delete it to start over, or choose another path."
        )
    return states


def _ordered_as(parameter, tensor):
    """Return a tensor of an optimizer's state in the parameter's order in memory.

    torch's fused kernels take both as flat arrays. On a CPU they do not check that the
    order is the same, as it is not for kernels with channels last.
    """
    if tensor.shape != parameter.shape:
        return tensor  # a count of steps
    like = torch.empty_like(parameter, dtype=tensor.dtype, device=tensor.device)
    return like.copy_(tensor)


def _read(path):
    """Return what `_describe` described."""
    check_local(path, "checkpoint")
    try:
        text, tensors = parse_tensors(read_file_of_user(path))
        progress = json.loads(text)
    except FileNotFoundError:
        raise
    except Exception as error:  # of any bytes
        cause = str(error)[:200]
        raise _bad_file(
            path,
            "is damaged, cannot be read or is not a checkpoint of this package "
            f"({cause})",
        ) from error
    found = progress.get("format") if isinstance(progress, dict) else None
    if found != _FORMAT:
        raise _bad_file(
            path,
            f"was written by another version of this package (format {shown(found)})",
        )
    for name, is_such in _PROGRESS.items():
        if name not in progress or not is_such(progress[name]):
            found = shown(progress.get(name))
            raise _bad_file(path, f"is damaged: its {name!r} is {found}")
    return progress, tensors


def _bad_file(path, what):
    return BadFileError(
        f"{checkpoint_in_words(path)} {what}. Delete it, or choose another path."
    )


def _is_count(value):
    return type(value) is int and 0 <= value <= _MAX_EPOCHS


def _is_number(value):
    return type(value) in (int, float)


def is_table(value):
    """Whether JSON is a table: records of text and numbers, with the same keys."""
    return isinstance(value, list) and all(
        isinstance(record, dict)
        and record.keys() == value[0].keys()
        and all(isinstance(one, str) or _is_number(one) for one in record.values())
        for record in value
    )


def is_history(value):
    """Whether JSON is a history."""
    return is_table(value) and all(row.keys() >= {"phase", "epoch"} for row in value)


def _is_scale(value):
    return isinstance(value, dict) and all(
        isinstance(name, str) and _is_number(one) for name, one in value.items()
    )


# The values of a checkpoint other than tensors, and how each is checked.
_PROGRESS = {
    "epoch": _is_count,
    "history": is_history,
    "best_score": lambda value: value is None or _is_number(value),
    "best_epoch": lambda value: value is None or _is_count(value),
    "n_average": lambda value: value is None or (type(value) is int and value >= 0),
    "scale": _is_scale,
    "header": lambda value: isinstance(value, dict),
}
