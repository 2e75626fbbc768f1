"""A network compiled by OpenVINO, on the CPU.

The fastest form there is on a CPU: on 2 cores, ResNet-50 in float32 at 26.6 images/s,
against 16.7 in torch with the channels last, 22.6 with torch.compile and 24.9 in ONNX
Runtime; the installed network 164 against 57.
"""

import importlib
import importlib.util
import json
import logging
import os
import sys
import threading
import warnings
from collections import OrderedDict

import numpy as np
import torch
from torch import nn

from .._device import compute_context
from ._agreement import TOLERANCE, largest_difference, random_pixels
from ._run import run_truncated

__all__ = ["OpenVINOError", "compiled_network", "is_installed"]

logger = logging.getLogger(__name__)

# What is compiled computes the same as torch to this, compared on random images before
# it is used. bfloat16 has 8 bits, and noise is hard on it: 0.08 with the installed
# network.
_TOLERANCE = {"float32": TOLERANCE, "bfloat16": 0.2}
_ELEMENT_TYPES = {"float32": "f32", "bfloat16": "bf16"}

# Not 1, which a trace could take for a constant, and another number to compare with.
_N_TRACED = 2
_N_COMPARED = 3

# As many as the store keeps networks in torch, and for the same reason.
_N_KEPT = 2


class OpenVINOError(Exception):
    """OpenVINO cannot run a network; the message says why."""


def is_installed():
    """Return whether the extra ``[openvino]`` is there, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def compiled_network(spec, outputs, probe, precision, borrow):
    """Return a network compiled by OpenVINO, the two used last without delay.

    Parameters
    ----------
    spec : NetworkSpec
    outputs : sequence of Output
    probe : Probe
    precision : {"float32", "bfloat16"}
    borrow : callable
        Returns a context that lends the network in torch. Called only to convert it.

    Returns
    -------
    callable
        As `Runner` wants it.

    Raises
    ------
    OpenVINOError
        If it is not installed, or cannot convert, compile or correctly run the network.
    """
    n_threads = torch.get_num_threads()
    key = None
    if spec.module is None:
        key = (
            json.dumps(spec.architecture, sort_keys=True),
            spec.weights.store_key(),
            spec.preprocessing,
            tuple((one.layer, one.pooling) for one in outputs),
            precision,
            n_threads,
        )
    # One at a time: two threads would convert the same network twice.
    with _lock:
        compiled = _compiled.get(key)
        if compiled is None:
            try:
                with borrow() as network:
                    compiled = _compile(
                        network,
                        outputs,
                        probe,
                        spec.preprocessing,
                        precision,
                        n_threads,
                    )
            except OpenVINOError as error:
                # Kept as well, without what its traceback holds: the next call would
                # only find the same again.
                compiled = OpenVINOError(str(error))
            if key is not None:
                _compiled[key] = compiled
        if key is not None:
            _compiled.move_to_end(key)
            while len(_compiled) > _N_KEPT:
                _compiled.popitem(last=False)
    if isinstance(compiled, OpenVINOError):
        raise OpenVINOError(str(compiled))
    return _OpenVINONetwork(compiled)


_compiled: OrderedDict[tuple, object] = OrderedDict()
_lock = threading.Lock()
# Its locks would be held for ever in a process that was forked meanwhile.
os.register_at_fork(after_in_child=lambda: _forget())


def _forget():
    global _lock
    _lock = threading.Lock()
    _compiled.clear()


class _OpenVINONetwork:
    """One user's requests to a compiled network."""

    def __init__(self, compiled):
        self._request = compiled.create_infer_request()

    def __call__(self, batch):
        """Return the rows of a batch; the parameters are those of `EagerNetwork`."""
        if not len(batch):
            shapes = (one.partial_shape for one in self._request.model_outputs)
            return [np.empty((0, one[1].get_length()), np.float32) for one in shapes]
        results = self._request.infer(
            [np.ascontiguousarray(batch.numpy())], share_inputs=True
        )
        return [np.asarray(rows, np.float32) for rows in results.to_tuple()]


class _PixelsToRows(nn.Module):
    """From decoded pixels to rows, so that the normalisation is compiled, too."""

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


def _compile(network, outputs, probe, preprocessing, precision, n_threads):
    if next(network.parameters(), torch.empty(0)).dtype != torch.float32:
        raise OpenVINOError("its weights are not in float32")
    pixels = random_pixels(_N_TRACED + _N_COMPARED, preprocessing.crop)
    wrapped = _PixelsToRows(network, outputs, probe, preprocessing).eval()
    try:
        compiled = _convert(wrapped, pixels[:_N_TRACED], precision, n_threads)
        found = _OpenVINONetwork(compiled)(pixels[_N_TRACED:])
    except Exception as error:  # networks are anybody's code
        logger.debug("OpenVINO failed", exc_info=True)
        raise OpenVINOError(_in_words(error)) from error
    with compute_context(torch.device("cpu"), "float32"):
        wanted = [rows.numpy() for rows in wrapped(pixels[_N_TRACED:])]
    _compare(found, wanted, _TOLERANCE[precision])
    return compiled


def _in_words(error):
    """Return the one line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # OpenVINO begins with the line of its own source, and ends with the cause.
    said = lines[-1] if lines[0].startswith(("Check ", "Exception from")) else lines[0]
    return said.removeprefix("-- ")[:200]


def _import_openvino():
    """Import OpenVINO without its usage telemetry.

    That is a package of its own, which is told of every import and every conversion
    and reports to its makers. Where it is missing, OpenVINO does without: for the time
    of the import, it is.
    """
    if "openvino" in sys.modules:
        return importlib.import_module("openvino")  # the user's own doing
    telemetry = "openvino_telemetry"
    hidden = telemetry not in sys.modules
    if hidden:
        sys.modules[telemetry] = None
    try:
        openvino = importlib.import_module("openvino")
        importlib.import_module("openvino.frontend.pytorch.ts_decoder")
        return openvino
    finally:
        if hidden:
            del sys.modules[telemetry]


def _convert(module, example, precision, n_threads):
    # The parts that openvino.convert_model is made of, which would also report to the
    # telemetry.
    openvino = _import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.inference_mode(), warnings.catch_warnings():
        # The tracer warns of numbers that it takes for constants, such as the size
        # of the image, and torch of the tracer's age.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, (example,), check_trace=False)
        decoder = TorchScriptPythonDecoder(traced)
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, *example.shape[1:]])
    return openvino.Core().compile_model(
        model,
        "CPU",
        {
            # One request at a time on all cores: batches are formed already.
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _ELEMENT_TYPES[precision],
            "INFERENCE_NUM_THREADS": n_threads,
        },
    )


def _compare(found, wanted, tolerance):
    shapes = [rows.shape for rows in found]
    if shapes != [rows.shape for rows in wanted]:
        raise OpenVINOError(f"its rows have shapes {shapes}")
    error = largest_difference(found, wanted)
    if not error <= tolerance:
        raise OpenVINOError(
            f"its rows differ from torch's by {error:.1e} of the largest value"
        )
