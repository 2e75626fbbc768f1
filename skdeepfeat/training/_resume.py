"""Fits that write a checkpoint, and resume from it if it belongs to the same fit."""

import dataclasses
import re

import numpy as np
import torch
from sklearn.utils import check_random_state

from .._utils._digests import digest_arrays
from ._checkpoint import (
    checkpoint_in_words,
    load_checkpoint,
    read_checkpoint_header,
    save_checkpoint,
)
from ._processes import Processes
from ._state import copy_state

# Settings that do not change a result.
_IRRELEVANT = {"checkpoint", "verbose"}


class ResumableFit:
    """The state of a fit while it runs.

    Parameters
    ----------
    settings : dataclass
        With `checkpoint`.
    device : str or torch.device
        As the parameter of the estimators.
    random_state : int, RandomState instance or None

    Attributes
    ----------
    settings
    device : torch.device
    processes : Processes
    seed : int
        That of the fit that this one resumes, if any.
    n_earlier_epochs : int
        Number of epochs of the fits that this one continues.
    interrupted : bool
    """

    n_earlier_epochs = 0

    def __init__(self, settings, device, random_state):
        self.settings = settings
        self.device = Processes.own_device(device)
        self.processes = Processes(self.device)
        self._found = None
        if settings.checkpoint is not None:
            self._found = read_checkpoint_header(settings.checkpoint)
        self.seed = self.processes.same_for_all(_draw_seed(random_state, self._found))
        self.interrupted = False

    def resume(self, run, data, probe_images=None):
        """Load a checkpoint, if there is one; return the function that writes the next.

        Parameters
        ----------
        run : TrainingRun
        data : PixelData or PairData
        probe_images : ndarray or None, default=None

        Returns
        -------
        callable
            ``save(run)``, which does nothing without the setting `checkpoint`.

        Raises
        ------
        ValueError
            If the checkpoint belongs to another fit.
        """
        path = self.settings.checkpoint
        if path is None:
            return lambda run: None
        header = {
            "seed": self.seed,
            "first_epoch": self.n_earlier_epochs,
            "parameters": _describe_settings(self.settings),
            "network": _digest_weights(run.model.neck),
            "data": digest_arrays(*data.arrays()),
            "teacher": None if run.teacher is None else _digest_weights(run.teacher),
            "probe": None if probe_images is None else digest_arrays(probe_images),
        }
        if self._found is not None:
            _refuse_other(path, self._found, header)
            load_checkpoint(path, run)

        def save(run):
            if self.processes.rank == 0:
                save_checkpoint(path, run, header)

        return save


def _draw_seed(random_state, header):
    seed = None if header is None else header.get("seed")
    if random_state is None and type(seed) is int:
        return seed % 2**31
    return int(check_random_state(random_state).randint(2**31 - 1))


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
    in_words = {
        "network": "the network's weights",
        "first_epoch": "the number of earlier epochs",
        "data": "the images, targets or weights",
        "probe": "X_probe",
        "teacher": "the teacher's weights",
        "seed": "'random_state'",
    }
    differing += [in_words[one] for one in in_words if found.get(one) != header[one]]
    if differing:
        raise ValueError(
            f"{checkpoint_in_words(path)} belongs to another fit, with "
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
