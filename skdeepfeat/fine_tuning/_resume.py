"""Resuming a fit from its checkpoint, if the checkpoint belongs to the same fit."""

import dataclasses
import os
import re

import numpy as np
import torch
from sklearn.utils import check_random_state

from .._utils._digests import digest_arrays
from .._utils._shown import shown
from ..training import copy_state, load_checkpoint, save_checkpoint

# Settings that do not change a result.
_IRRELEVANT = {"checkpoint", "verbose"}


def draw_seed(random_state, header):
    """Return the seed of a fit, which is that of the fit that it resumes, if any.

    Parameters
    ----------
    random_state : int, RandomState instance or None
    header : dict or None
        Of the checkpoint.
    """
    seed = None if header is None else header.get("seed")
    if random_state is None and type(seed) is int:
        return seed % 2**31
    return int(check_random_state(random_state).randint(2**31 - 1))


def resume(fit, run, data, probe=None):
    """Load a checkpoint, if there is one; return the function that writes the next.

    Parameters
    ----------
    fit : Fit
    run : TrainingRun
    data : PixelData or PairData
    probe : Probe or None, default=None

    Returns
    -------
    callable or None
        ``after_epoch(run)``; None without the setting `checkpoint`.

    Raises
    ------
    ValueError
        If the checkpoint belongs to another fit.
    """
    path = fit.settings.checkpoint
    if path is None:
        return None
    header = {
        "seed": fit.seed,
        "first_epoch": fit.n_earlier_epochs,
        "parameters": _describe_settings(fit.settings),
        "network": _digest_weights(run.model.neck),
        "data": digest_arrays(*data.arrays()),
        "teacher": None if run.teacher is None else _digest_weights(run.teacher),
        "probe": None if probe is None else digest_arrays(probe.images),
    }
    if fit.checkpoint_header is not None:
        _refuse_other(path, fit.checkpoint_header, header)
        load_checkpoint(path, run)

    def after_epoch(run):
        if fit.processes.rank == 0:
            save_checkpoint(path, run, header)

    return after_epoch


def _refuse_other(path, found, header):
    """Raise if the header of a checkpoint is that of another fit."""
    parameters = found.get("parameters")
    if not isinstance(parameters, dict):
        parameters = {}
    differing = [
        repr(name)
        for name, value in header["parameters"].items()
        if parameters.get(name) != value
    ]
    for name, words in {
        "network": "the network's weights",
        "first_epoch": "the number of earlier epochs",
        "data": "the images, targets or weights",
        "probe": "X_probe",
        "teacher": "the teacher's weights",
        "seed": "'random_state'",
    }.items():
        if found.get(name) != header[name]:
            differing.append(words)
    if differing:
        raise ValueError(
            f"The 'checkpoint' file {shown(os.fspath(path), 255)} "
            "belongs to another fit, with "
            f"other values of {', '.join(differing)}. Delete it to start over, or "
            "choose another path. In a cross-validation or a search, every fit has "
            "other data: use checkpoint=None."
        )


def _digest_weights(module):
    tensors = copy_state(module).values()
    # As bytes, because numpy has no bfloat16.
    return digest_arrays(*(t.reshape(-1).view(torch.uint8).numpy() for t in tensors))


def _describe_settings(settings):
    return {
        field.name: _describe(getattr(settings, field.name))
        for field in dataclasses.fields(settings)
        if field.name not in _IRRELEVANT
    }


def _describe(value):
    """Return a value as a JSON type that is the same in every process."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (int, float, str, type(None))):
        return value
    # The text of a function contains its address.
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))
