"""Networks that a library has compiled: compared with torch, kept for the next call."""

import ctypes
import json
import logging
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..._utils._device import compute_context, is_out_of_memory
from ..._utils._forks import in_child, undisturbed_by_forks
from ..._utils._parameter_errors import first_line
from .._modules import copy_network
from ._kept_networks import keep_network, key_of_network, recall_network
from ._row_difference import TOLERANCE, largest_difference, random_pixels
from ._runtimes import load_runtime
from ._truncated_pass import run_truncated

logger = logging.getLogger(__name__)

# bfloat16 has 8 bits, and random pixels are hard for it: 0.08 with the installed
# network. float16 and TF32 have 11 bits.
_TOLERANCES = {"float32": TOLERANCE, "tf32": 0.03, "bfloat16": 0.2, "float16": 0.03}

# Not 1, which a trace could take for a constant. The comparison uses another number.
_N_TRACED = 2
_N_COMPARED = 3

# For each device, as many as `_loaded_networks` keeps, and for the same reason.
_N_KEPT = 2


class CompilationError(Exception):
    """A network cannot be run in another form; the message says why."""


@dataclass(frozen=True, eq=False)
class CompiledForm:
    """A network in the form that a library compiles for a device and a precision.

    Attributes
    ----------
    runtime : {"compile", "openvino"}
    neck : Neck
        Of a user's own network, one with a fingerprint, by which its compiled form is
        found again.
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    files : files as `_kept_networks` takes them, default=None
        Where compiled networks are kept for other processes.
    """

    runtime: str
    neck: Any
    device: torch.device
    precision: str
    files: Any = None

    def load(self):
        """Return the compiled network. The two that were used last stay in memory.

        Returns
        -------
        callable
            As `Runner` wants it.

        Raises
        ------
        CompilationError
            If the runtime cannot convert the network, or does not run it correctly.
        """
        key, fingerprint = self._key(), self.neck.fingerprint
        if fingerprint is not None and not fingerprint.is_stable:
            raise CompilationError("its rows differ from one pass to the next")
        # One at a time: two threads would compile the same network twice.
        with undisturbed_by_forks(), _lock:
            compiled = self._in_memory(key)
            if compiled is None:
                try:
                    compiled = self._recall_or_compile()
                except CompilationError as error:
                    if is_out_of_memory(error.__cause__):
                        raise  # there may be more memory next time
                    # Stored as well, because the next call would fail in the same way.
                    # The new error has no traceback, which would keep the network
                    # alive.
                    compiled = CompilationError(str(error))
                _compiled[key] = compiled, fingerprint
            _compiled.move_to_end(key)
            for old in [one for one in _compiled if self.device in one][:-_N_KEPT]:
                del _compiled[old]
        if isinstance(compiled, CompilationError):
            raise CompilationError(str(compiled))
        return compiled()

    def is_in_memory(self):
        """Return whether `load` need not compile, or has failed before."""
        return self._in_memory(self._key()) is not None

    def _in_memory(self, key):
        compiled, compiled_for = _compiled.get(key, (None, None))
        if compiled_for is not None and not compiled_for.same_as(self.neck.fingerprint):
            return None  # its code has changed
        return compiled

    def _key(self):
        spec, fingerprint = self.neck.spec, self.neck.fingerprint
        return (
            self.runtime,
            json.dumps(spec.architecture, sort_keys=True),
            spec.weights.store_key() if fingerprint is None else fingerprint.tensors,
            spec.preprocessing,
            tuple((one.layer, one.pooling) for one in self.neck.outputs),
            self.device,
            self.precision,
            torch.get_num_threads(),
        )

    def _recall_or_compile(self):
        key = None
        if self.files is not None and self.device.type == "cpu":
            key = key_of_network(self)
        if key is not None and key in self.files:
            compiled = recall_network(self, key)
            if compiled is not None:
                name = self.neck.spec.name
                logger.info("using the stored compiled network of %s", name)
                return compiled
        compiled, rows = self._compile()
        # A weights file may have been replaced meanwhile.
        if key is not None and key == key_of_network(self):
            keep_network(self, key, compiled, rows)
        return compiled

    def _compile(self):
        """Return a compiled network, and what torch computes for `random_pixels`."""
        neck, device = self.neck, self.device
        with neck.borrowed(device) as network:
            if neck.is_own:
                # The user may train it further, in place.
                network = copy_network(network, owned=True)
            module = PixelsToRows(network, neck).eval().to(device)
            if next(network.parameters(), torch.empty(0)).dtype != torch.float32:
                raise CompilationError("its weights are not in float32")
            pixels = random_pixels(_N_COMPARED + _N_TRACED, neck.preprocessing.crop)
            # A copy, because torch.compile compiles views separately.
            compared, example = pixels[:_N_COMPARED], pixels[_N_COMPARED:].clone()
            example = example.to(device)
            try:
                compiled = load_runtime(self.runtime).compile_network(
                    module, example, device, self.precision
                )
                found = compiled()(compared)
            except Exception as error:  # a user's network may raise anything
                logger.debug("compiling failed", exc_info=True)
                raise CompilationError(first_line(error)) from error
            with compute_context(device, "float32"):
                rows = [one.cpu().numpy() for one in module(compared.to(device))]
        self.compare(found, rows)
        return compiled, rows

    def compare(self, found, wanted):
        """Raise `CompilationError` if rows are not those that torch computes.

        Parameters
        ----------
        found, wanted : list of ndarray, shape (n_images, n_features)
            One for each output.
        """
        shapes = [rows.shape for rows in found]
        if shapes != [rows.shape for rows in wanted]:
            raise CompilationError(f"its rows have shapes {shapes}")
        if not all(np.isfinite(rows).all() for rows in wanted):
            raise CompilationError(
                "torch's own rows of random pixels are NaN or infinite, so there is "
                "nothing to compare with"
            )
        error = largest_difference(found, wanted)
        if not error <= _TOLERANCES[self.precision]:
            raise CompilationError(
                f"its rows differ from torch's by {error:.1e} of the largest value"
            )


_compiled: OrderedDict[tuple, object] = OrderedDict()
_lock = threading.Lock()


@in_child
def _abandon_compiled():
    """Start with an empty store in a forked process, and leave the parent's alone.

    The lock may be locked there forever. OpenVINO's threads are missing, and it waits
    for them forever when a compiled network is destroyed, so none ever is.
    """
    global _compiled, _lock
    for one, _ in _compiled.values():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
    _compiled, _lock = OrderedDict(), threading.Lock()


class PixelsToRows(nn.Module):
    """From decoded pixels to rows, so that the normalization is compiled, too.

    Parameters
    ----------
    network : Module
    neck : Neck
    """

    def __init__(self, network, neck):
        super().__init__()
        self.network = network
        self._outputs = neck.outputs
        self._probe = neck.probe
        for name in ("mean", "std"):
            value = torch.tensor(getattr(neck.preprocessing, name))
            self.register_buffer(name, value.reshape(1, 3, 1, 1))

    def forward(self, pixels):
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        images = (images / 255 - self.mean) / self.std
        rows = run_truncated(self.network, images, self._outputs, self._probe)
        return tuple(rows)
