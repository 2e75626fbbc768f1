"""A network compiled by OpenVINO, on the CPU.

The fastest form there is on a CPU: on 2 cores, ResNet-50 in float32 at 26.6 images/s,
against 16.7 in torch with the channels last, 22.6 with torch.compile and 24.9 in ONNX
Runtime; the installed network 164 against 57.
"""

import functools
import importlib
import importlib.util
import sys
import warnings

import numpy as np
import torch

__all__ = ["computes_bfloat16", "convert", "is_installed", "network"]

_ELEMENT_TYPES = {"float32": "f32", "bfloat16": "bf16"}


def is_installed():
    """Return whether the extra ``[openvino]`` is there, without importing it."""
    return importlib.util.find_spec("openvino") is not None


@functools.cache
def computes_bfloat16():
    """Return whether this processor computes in bfloat16, and not in float32 for it."""
    core = _import_openvino().Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def convert(module, pixels, device, precision, n_threads):
    """Return a module as OpenVINO's compiled model, for any number of images.

    Parameters
    ----------
    module : PixelsToRows
    pixels : Tensor of uint8, shape (n_images, height, width, 3)
        To trace it with.
    device : torch.device
        The CPU.
    precision : {"float32", "bfloat16"}
    n_threads : int

    Returns
    -------
    openvino.CompiledModel
    """
    # The parts that openvino.convert_model is made of, which would also report to the
    # telemetry.
    openvino = _import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.inference_mode(), warnings.catch_warnings():
        # The tracer warns of numbers that it takes for constants, such as the size
        # of the image, and torch of the tracer's age.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, (pixels,), check_trace=False)
        decoder = TorchScriptPythonDecoder(traced)
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, *pixels.shape[1:]])
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            # One request at a time on all cores: batches are formed already.
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _ELEMENT_TYPES[precision],
            "INFERENCE_NUM_THREADS": n_threads,
        },
    )
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != _ELEMENT_TYPES[precision]:
        raise ValueError(f"it would compute in {found} instead of {precision}")
    return compiled


def network(compiled, device, precision):
    """Return one user's requests to a compiled model, as `Runner` wants them."""
    return OpenVINONetwork(compiled)


class OpenVINONetwork:
    """One user's requests to a compiled model.

    Parameters
    ----------
    compiled : openvino.CompiledModel
    """

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
