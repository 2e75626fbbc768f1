"""Networks compiled by OpenVINO, the fastest runtime on a CPU.

`benchmarks/extraction.py` compares it with torch.
"""

import functools
import importlib.util
import io
import sys
import warnings

import numpy as np
import torch

from ..._utils._optional import import_optional, import_without_telemetry
from .._installed_code import digest_code, installed_version

TITLE = "OpenVINO"
BATCH_PIXELS = 32 * 224 * 224  # more than torch's, as OpenVINO reuses its memory

# OpenVINO computes float16 on a CPU in float32.
_ELEMENT_TYPES = {"float32": "f32", "bfloat16": "bf16"}


def is_installed():
    """Return whether the extra ``[openvino]`` is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


@functools.cache
def computes_bfloat16():
    """Return whether this processor computes bfloat16 itself, not in float32."""
    core = import_openvino().Core()
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def check(device, precision):
    """Raise if OpenVINO cannot be used.

    Raises
    ------
    ImportError
        If it is not installed.
    ValueError
    """
    if device.type != "cpu":
        raise ValueError(
            "The 'runtime' parameter can be 'openvino' on the CPU only. Got it with "
            f"device {str(device)!r}: use device='cpu' or runtime='auto'."
        )
    if precision not in _ELEMENT_TYPES:
        raise ValueError(
            "The 'runtime' parameter can be 'openvino' with precision 'float32' or "
            f"'bfloat16'. Got it with {precision!r}: use one of these, or "
            "runtime='auto'."
        )
    if not is_installed():
        raise ImportError(
            "runtime='openvino' needs the package 'openvino', which is not installed. "
            "Install it with: pip install 'skdeepfeat[openvino]'"
        )
    if precision == "bfloat16" and not computes_bfloat16():
        raise ValueError(
            "The 'runtime' parameter can be 'openvino' with precision 'bfloat16' only "
            "on processors that compute in bfloat16, which this one does not. Got "
            "'openvino': use precision='float32', which is as fast here, or "
            "runtime='torch'."
        )


def pays(device, precision, n_pixels):
    """Return whether compiling may be worth its time; see `_runtimes`."""
    if device.type != "cpu" or precision not in _ELEMENT_TYPES or not is_installed():
        return False
    return n_pixels > 0 if precision == "float32" else computes_bfloat16()


def compile_network(module, pixels, device, precision):
    """Return a function that makes an `OpenVINONetwork`.

    Parameters
    ----------
    module : PixelsToRows
    pixels : Tensor of uint8, shape (n_images, height, width, 3)
    device : torch.device
        The CPU.
    precision : {"float32", "bfloat16"}
    """
    openvino = import_openvino()
    model = convert(module, pixels)
    return _ready(
        openvino.Core().compile_model(model, "CPU", _options(precision)), precision
    )


def dump_network(make):
    """Return what `restore_network` makes a compiled network of again, as bytes."""
    [compiled] = make.args
    stream = io.BytesIO()
    compiled.export_model(stream)
    return stream.getbuffer()


def restore_network(data, precision):
    """Return what `compile_network` did in another process.

    OpenVINO believes what `data` says, so they must be the user's own and undamaged.

    Parameters
    ----------
    data : bytes-like
    precision : {"float32", "bfloat16"}
    """
    openvino = import_openvino()
    core, options = openvino.Core(), _options(precision)
    try:
        tensor = openvino.Tensor(np.frombuffer(data, np.uint8))
        compiled = core.import_model(tensor, "CPU", options)
    except TypeError:  # older versions know only streams, which are slower
        compiled = core.import_model(io.BytesIO(data), "CPU", options)
    return _ready(compiled, precision)


@functools.cache
def installed_code():
    """Return version and files of OpenVINO in JSON types, or None if unknown."""
    state = installed_version("openvino"), digest_code("openvino")
    return state if all(state) else None


def _options(precision):
    return {
        # One request at a time on all cores: the images come in batches.
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _ELEMENT_TYPES[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }


def _ready(compiled, precision):
    found = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if found != _ELEMENT_TYPES[precision]:
        raise ValueError(f"it would compute in {found} instead of {precision}")
    return functools.partial(OpenVINONetwork, compiled)


def convert(module, pixels):
    """Return the OpenVINO model of a module.

    Parameters
    ----------
    module : Module
        In evaluation mode, on the CPU.
    pixels : Tensor of uint8, shape (n_images, height, width, 3)
        An example of its input.

    Returns
    -------
    openvino.Model
        For any number of images.
    """
    # These are the parts of openvino.convert_model, which would also send telemetry.
    import_openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.inference_mode(), warnings.catch_warnings():
        # The tracer warns about values that it takes for constants, such as the size
        # of the image, and torch that the tracer is deprecated.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, (pixels,), check_trace=False)
        decoder = TorchScriptPythonDecoder(traced)
    frontend = FrontEndManager().load_by_framework("pytorch")
    model = frontend.convert(frontend.load(decoder))
    model.reshape([-1, *pixels.shape[1:]])
    return model


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


def import_openvino(purpose="runtime='openvino'"):
    """Import OpenVINO without its usage telemetry.

    Parameters
    ----------
    purpose : str
        What needs it, for the error.
    """
    options = {"extra": "openvino", "purpose": purpose}
    if "openvino" not in sys.modules:
        import_without_telemetry("openvino.frontend.pytorch.ts_decoder", **options)
    return import_optional("openvino", **options)
