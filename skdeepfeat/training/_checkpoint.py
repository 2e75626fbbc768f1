"""A run of epochs as one file, from which it goes on after a crash."""

import json
import os
import warnings

import safetensors
import safetensors.torch
import torch

from .._atomic_file import write_atomically

__all__ = ["load_checkpoint", "read_checkpoint_header", "save_checkpoint"]

_FORMAT = "skdeepfeat-checkpoint-1"


def save_checkpoint(path, run, header):
    """Write a run's state; whoever reads the file sees the old one or the new one.

    A full disk does not end a training of hours: that is a warning, once a run, and
    the file stays the one before.

    Parameters
    ----------
    path : path-like
    run : TrainingRun
        Its `checkpoint_error` is set.
    header : dict of JSON types
        What the run belongs to.

    Warns
    -----
    RuntimeWarning
        If the file cannot be written.
    """
    tensors, progress = _describe(run)
    content = {"skdeepfeat": json.dumps(progress | {"header": header})}
    try:
        write_atomically(path, safetensors.torch.save(tensors, content))
    except OSError as error:
        if run.checkpoint_error is None:
            warnings.warn(
                f"The 'checkpoint' file {os.fspath(path)!r} could not be written after "
                f"epoch {run.epoch}: {error}. The training goes on, and will try "
                "again after each epoch.",
                RuntimeWarning,
                stacklevel=2,
            )
        run.checkpoint_error = error


def _describe(run):
    """Return the tensors and the rest of a run's state."""
    optimizer = run.optimizer.state_dict()["state"]
    tensors = {f"model.{k}": v for k, v in _tensors_of(run.model).items()}
    if run.average is not None:
        tensors |= {f"average.{k}": v for k, v in run.average.tensors.items()}
    if run.best_state is not None:
        tensors |= {f"best.{k}": v for k, v in run.best_state.items()}
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
    # safetensors refuses tensors that share memory, and so do we.
    return {k: v.clone() for k, v in tensors.items()}, progress


def read_checkpoint_header(path):
    """Return the header that a checkpoint was written with, or None without a file.

    Raises
    ------
    ValueError
        If the file is damaged or something else.
    """
    progress = _read_progress(path)
    return None if progress is None else progress["header"]


def load_checkpoint(path, run):
    """Put a run where the checkpoint's was.

    Parameters
    ----------
    path : path-like
    run : TrainingRun
        New, with the same model, optimiser and settings.

    Raises
    ------
    ValueError
        If the file is damaged, something else, or a checkpoint of another network. The
        run is then as it was.
    """
    progress = _read_progress(path)
    tensors = safetensors.torch.load_file(path)
    _refuse_other_network(path, tensors, run)
    with torch.no_grad():
        for name, tensor in _tensors_of(run.model).items():
            tensor.copy_(tensors[f"model.{name}"])
    if run.average is not None:
        for name, tensor in run.average.tensors.items():
            tensor.copy_(tensors[f"average.{name}"])
        run.average.n_updates = progress["n_average"]
    best = {k[5:]: v for k, v in tensors.items() if k.startswith("best.")}
    run.best_state = best or None
    state = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = value
    whole = run.optimizer.state_dict()
    whole["state"] = state
    run.optimizer.load_state_dict(whole)
    run.epoch = progress["epoch"]
    run.history = progress["history"]
    run.best_score, run.best_epoch = progress["best_score"], progress["best_epoch"]
    run.scaler.load_state_dict(progress["scale"])


def _refuse_other_network(path, tensors, run):
    wanted = {f"model.{k}": v.shape for k, v in _tensors_of(run.model).items()}
    if run.average is not None:
        wanted |= {f"average.{k}": v.shape for k, v in run.average.tensors.items()}
    held = {
        k: v.shape for k, v in tensors.items() if k.startswith(("model.", "average."))
    }
    if held != wanted:
        names = sorted(dict(held.items() ^ wanted.items()))
        raise ValueError(
            f"The 'checkpoint' file {os.fspath(path)!r} belongs to another network: "
            f"{names[0]!r} and {len(names) - 1} more of its tensors are not like this "
            "one's. Delete it to begin anew, or choose another path."
        )


def _tensors_of(model):
    return dict([*model.named_parameters(), *model.named_buffers()])


def _read_progress(path):
    try:
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("skdeepfeat", "no such entry")
        progress = json.loads(text)
    except FileNotFoundError:
        return None
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise ValueError(
            f"The 'checkpoint' file {os.fspath(path)!r} is damaged, cannot be read or "
            f"is no checkpoint of this package ({error}). Delete it, or choose another "
            "path."
        ) from error
    held = progress.get("format") if isinstance(progress, dict) else None
    if held != _FORMAT:
        raise ValueError(
            f"The 'checkpoint' file {os.fspath(path)!r} was written by another version "
            f"of this package (format {held!r}). Delete it, or "
            "choose another path."
        )
    return progress
