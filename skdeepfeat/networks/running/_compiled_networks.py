"""Networks that a library has compiled: kept for the next call, compared with torch."""

import ctypes
import json
import logging
import threading
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from ..._utils._device import compute_context, is_out_of_memory
from ..._utils._forks import in_child, undisturbed_by_forks
from .._copying import own_copy
from ._row_difference import TOLERANCE, largest_difference, random_pixels
from ._truncated_pass import run_truncated

__all__ = ["CompilationError", "PixelsToRows", "compiled_network", "forget_compiled"]

logger = logging.getLogger(__name__)

# bfloat16 has 8 bits, and noise is hard on it: 0.08 with the installed network. float16
# and TF32 have 11.
_TOLERANCES = {
    "float32": TOLERANCE,
    "tf32": 0.03,
    "bfloat16": 0.2,
    "float16": 0.03,
}

# Not 1, which a trace could take for a constant, and another number to compare with.
_N_TRACED = 2
_N_COMPARED = 3

# On each device, as many as the store keeps networks in torch, for the same reason.
_N_KEPT = 2


class CompilationError(Exception):
    """A network cannot be run in another form; the message says why."""


def compiled_network(
    compiler, spec, outputs, probe, device, precision, borrow, fingerprint=None
):
    """Return a compiled network, the two used last without delay.

    Parameters
    ----------
    compiler : module
        `_openvino` or `_inductor`: ``compiler.convert(module, pixels, device,
        precision, n_threads)`` returns what is kept, and
        ``compiler.network(what is kept, device, precision)`` one user's access to it,
        a callable as `Runner` wants it.
    spec : NetworkSpec
    outputs : sequence of Output
    probe : Probe
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    borrow : callable
        Returns a context that lends the network in torch, on the device. Called only
        to compile it.
    fingerprint : Fingerprint, default=None
        Of a user's own network, by which a compiled form of it is found again.

    Returns
    -------
    callable
        As `Runner` wants it.

    Raises
    ------
    CompilationError
        If the compiler cannot convert or correctly run the network.
    """
    if fingerprint is not None and not fingerprint.is_stable:
        raise CompilationError("its rows differ from one pass to the next")
    n_threads = torch.get_num_threads()
    key = (
        compiler.__name__,
        json.dumps(spec.architecture, sort_keys=True),
        spec.weights.store_key() if fingerprint is None else fingerprint.tensors,
        spec.preprocessing,
        tuple((one.layer, one.pooling) for one in outputs),
        device,
        precision,
        n_threads,
    )
    # One at a time: two threads would compile the same network twice.
    with undisturbed_by_forks(), _lock:
        compiled, of_which = _compiled.get(key, (None, None))
        if of_which is not None and not of_which.same_as(fingerprint):
            compiled = None  # its code has changed
        if compiled is None:
            of_which = fingerprint
            try:
                with borrow() as network:
                    if spec.module is not None:
                        # The user may train it on, in place, and what is kept here
                        # has to stay what its key says.
                        network = own_copy(network)
                    wrapped = PixelsToRows(network, outputs, probe, spec.preprocessing)
                    compiled = _compile(
                        compiler,
                        wrapped.eval().to(device),
                        spec.preprocessing.crop,
                        device,
                        precision,
                        n_threads,
                    )
            except CompilationError as error:
                if is_out_of_memory(error.__cause__):
                    raise  # there may be more the next time
                # Kept as well, without what its traceback holds: the next call would
                # only find the same again.
                compiled = CompilationError(str(error))
        _keep(key, (compiled, of_which), device)
    if isinstance(compiled, CompilationError):
        raise CompilationError(str(compiled))
    return compiler.network(compiled, device, precision)


def _keep(key, compiled, device):
    """Keep the one that was used last, and forget those of its device that are old."""
    _compiled[key] = compiled
    _compiled.move_to_end(key)
    there = [one for one in _compiled if device in one]
    for old in there[:-_N_KEPT]:
        del _compiled[old]


def forget_compiled():
    """Drop the networks that are kept."""
    global _lock
    _lock = threading.Lock()
    _compiled.clear()


_compiled: OrderedDict[tuple, object] = OrderedDict()
_lock = threading.Lock()


@in_child
def _abandon_compiled():
    """Begin anew in a forked process, without touching what is its parent's.

    The lock may be held there forever, and OpenVINO waits forever for its threads,
    which are not there, when a compiled network is destroyed: it never is.
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
    outputs : sequence of Output
    probe : Probe
    preprocessing : Preprocessing
    """

    def __init__(self, network, outputs, probe, preprocessing):
        super().__init__()
        self.network = network
        self._outputs = outputs
        self._probe = probe
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1))
        self.register_buffer("std", std.reshape(1, 3, 1, 1))

    def forward(self, pixels):
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        images = (images / 255 - self.mean) / self.std
        rows = run_truncated(self.network, images, self._outputs, self._probe)
        return tuple(rows)


def _compile(compiler, module, crop, device, precision, n_threads):
    if next(module.network.parameters(), torch.empty(0)).dtype != torch.float32:
        raise CompilationError("its weights are not in float32")
    pixels = random_pixels(_N_TRACED + _N_COMPARED, crop)
    try:
        traced = pixels[:_N_TRACED].to(device)
        compiled = compiler.convert(module, traced, device, precision, n_threads)
        found = compiler.network(compiled, device, precision)(pixels[_N_TRACED:])
    except Exception as error:  # networks are anybody's code
        logger.debug("compiling failed", exc_info=True)
        raise CompilationError(_in_words(error)) from error
    with compute_context(device, "float32"):
        rows = module(pixels[_N_TRACED:].to(device))
    _compare(found, [one.cpu().numpy() for one in rows], _TOLERANCES[precision])
    return compiled


def _in_words(error):
    """Return the one line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # OpenVINO begins with the line of its own source, and ends with the cause.
    said = lines[-1] if lines[0].startswith(("Check ", "Exception from")) else lines[0]
    return said.removeprefix("-- ")[:200]


def _compare(found, wanted, tolerance):
    shapes = [rows.shape for rows in found]
    if shapes != [rows.shape for rows in wanted]:
        raise CompilationError(f"its rows have shapes {shapes}")
    if not all(np.isfinite(rows).all() for rows in wanted):
        raise CompilationError(
            "torch's own rows of noise are NaN or infinite, so there is nothing to "
            "compare with"
        )
    error = largest_difference(found, wanted)
    if not error <= tolerance:
        raise CompilationError(
            f"its rows differ from torch's by {error:.1e} of the largest value"
        )
