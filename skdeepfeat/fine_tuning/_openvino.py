"""A tuned network as OpenVINO's pair of files, from pixels to results."""

import contextlib
import inspect
import json
import logging
import os
import pathlib
import tempfile
import warnings

from .._utils._optional import import_without_telemetry
from ..networks import convert_to_openvino, import_openvino
from ._export import check_fits_float16, explained, fixed_number_error

_EXPORTED = "exported to OpenVINO"


def check_openvino_installed(dtype):
    """Raise ImportError if a package is missing that `write_openvino` needs."""
    if dtype == "int8":  # its extra includes the other one, so it is named first
        _import_nncf()
    import_openvino(purpose="Exporting to OpenVINO")


def write_openvino(path, export):
    """Write an .xml file with the graph, and next to it a .bin file with the weights.

    Parameters
    ----------
    path : path-like
        Of the .xml file.
    export : Export

    Raises
    ------
    ValueError
        If OpenVINO cannot convert the network, or not for any number of images.
    """
    with explained(export.network, _EXPORTED):
        model = convert_to_openvino(export.network, export.example)
    if model.outputs[0].partial_shape[0].is_static:
        raise fixed_number_error(export.network, _EXPORTED)
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({export.output_name})
    if export.dtype == "float16":
        check_fits_float16(_constants(model))
    elif export.dtype == "int8":
        with explained(export.network, "quantized by NNCF"):
            model = _quantized(model, export.calibration)
    for key, value in export.notes.items():
        model.set_rt_info(json.dumps(value, default=str), ["skdeepfeat", key])
    _save(model, pathlib.Path(path), export.dtype != "float32")


def _constants(model):
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().is_real():
            yield node.get_friendly_name(), node.get_data()


def _save(model, path, in_float16):
    """Write both files so that no reader finds parts of two networks."""
    openvino = import_openvino()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temp:
        graph = pathlib.Path(temp, path.name)
        openvino.save_model(model, graph, compress_to_fp16=in_float16)
        # Graphs do not say which weights they belong to. So the old graph is removed
        # first: whatever happens next, nobody can read it with the new weights.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.replace(graph.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(graph, path)


def _quantized(model, images):
    nncf = _import_nncf()
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        OverflowFix,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    kinds = {node.get_type_name() for node in model.get_ops()}
    is_transformer = "ScaledDotProductAttention" in kinds
    # The function below the one that reports its use to the vendor.
    quantize = inspect.unwrap(nncf.quantize)
    with _quiet():
        return quantize(
            model,
            nncf.Dataset([images[k : k + 1] for k in range(len(images))]),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
            # 7 bits for weights: sums of products of 8 bits overflow on processors
            # without VNNI, and the one that will run the file is unknown.
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE,
                # As ONNX Runtime does. The default, means of batches of one image,
                # cuts off the largest values of half of the images.
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )


def _import_nncf():
    logger_class = logging.getLoggerClass()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_without_telemetry(
                "nncf", extra="int8", purpose="dtype='int8' of to_openvino"
            )
    finally:
        logging.setLoggerClass(logger_class)  # NNCF sets its own


@contextlib.contextmanager
def _quiet():
    """Keep NNCF from printing messages and progress bars."""
    import rich

    console = rich.get_console()
    # Torch warns of missing GPUs when NNCF imports it further.
    logs = [logging.getLogger(name) for name in ("nncf", "torch.utils.cpp_extension")]
    before = [log.level for log in logs]
    was_quiet, console.quiet = console.quiet, True
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        console.quiet = was_quiet
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)
