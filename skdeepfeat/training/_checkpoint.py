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
                f"The 'checkpoint' file {shown(os.fspath(path), 255)} "
                "could not be written after "
                f"epoch {run.epoch}: {error}. The training continues, and tries "
                "again after each epoch.",
                RuntimeWarning,
            )
        run.checkpoint_error = error


def _describe(run):
    """Return the tensors and the rest of a run's state."""
    optimizer = run.optimizer.state_dict()["state"]
    tensors = {f"model.{k}": v for k, v in named_tensors(run.model).items()}
    if run.average is not None:
        tensors |= {f"average.{k}": v for k, v in run.average.tensors.items()}
    if run.best_state is not None:
        tensors |= {f"best.{k}": v for k, v in run.best_state.items()}
    if run.probes:
        tensors["probes"] = torch.from_numpy(np.stack(run.probes))
    for index, state in optimizer.items():
        for key, value in state.items():
            if value is not None:
                tensors[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
    progress = {
        "format": _FORMAT,
        "epoch": run.epoch,
        "history": run.history,
        "best_score": run.best_score,
        "best_epoch": run.best_epoch,
        "n_average": run.average.n_updates if run.average is not None else None,
        "scale": run.scaler.state_dict(),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    # safetensors refuses tensors that share memory.
    return {k: v.clone() for k, v in tensors.items()}, progress


def read_checkpoint_header(path):
    """Return the header that a checkpoint was written with, or None without a file.

    Raises
    ------
    BadFileError
        If the file is damaged or something else.
    """
    found = _read(path)
    return None if found is None else found[0]["header"]


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
    found = _read(path)
    if found is None:
        raise FileNotFoundError(
            f"There is no 'checkpoint' file {shown(os.fspath(path), 255)}."
        )
    progress, tensors = found
    states = _states_of(path, progress, tensors, run)
    with torch.no_grad():
        for name, tensor in named_tensors(run.model).items():
            tensor.copy_(tensors[f"model.{name}"])
    if run.average is not None:
        for name, tensor in run.average.tensors.items():
            tensor.copy_(tensors[f"average.{name}"])
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
    own = named_tensors(run.model)
    wanted = {f"model.{name}": tensor.shape for name, tensor in own.items()}
    if run.average is not None:
        wanted |= {f"average.{k}": v.shape for k, v in run.average.tensors.items()}
    if any(name.startswith("best.") for name in tensors):
        wanted |= {f"best.{k}": v.shape for k, v in own.items()}
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
            f"The 'checkpoint' file {shown(os.fspath(path), 255)} "
            "belongs to another network: "
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
    """Return what `_describe` described, or None without a file."""
    check_local(path, "checkpoint")
    try:
        text, tensors = parse_tensors(read_file_of_user(path))
        progress = json.loads(text)
    except FileNotFoundError:
        return None
    except Exception as error:  # of any bytes
        raise BadFileError(
            f"The 'checkpoint' file {shown(os.fspath(path), 255)} "
            "is damaged, cannot be read or "
            f"is not a checkpoint of this package ({str(error)[:200]}). Delete it, or "
            "choose another path."
        ) from error
    found = progress.get("format") if isinstance(progress, dict) else None
    if found != _FORMAT:
        raise BadFileError(
            f"The 'checkpoint' file {shown(os.fspath(path), 255)} "
            "was written by another version "
            f"of this package (format {shown(found)}). Delete it, or choose another "
            "path."
        )
    for name, is_such in _PROGRESS.items():
        if name not in progress or not is_such(progress[name]):
            raise BadFileError(
                f"The 'checkpoint' file {shown(os.fspath(path), 255)} "
                f"is damaged: its {name!r} "
                f"is {shown(progress.get(name))}. Delete it, or choose another "
                "path."
            )
    return progress, tensors


def _is_count(value):
    return type(value) is int and 0 <= value <= _MAX_EPOCHS


def _is_number(value):
    return type(value) in (int, float)


def is_history(value):
    """Whether JSON is a history: records of text and numbers."""
    return isinstance(value, list) and all(
        isinstance(record, dict)
        and record.keys() >= {"phase", "epoch"}
        and all(isinstance(one, str) or _is_number(one) for one in record.values())
        for record in value
    )


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
