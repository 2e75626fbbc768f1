"""A tuned network as one ONNX file, from pixels to results."""

import json
import logging
import pathlib
import tempfile
import warnings

import numpy as np
import torch

from .._utils._optional import import_optional
from .._utils._plain_file import write_atomically
from ._export import check_fits_float16, explained, fixed_number_error

_EXPORTED = "exported to ONNX"

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Outputs of these stay in int8 between layers, which avoids conversions.
_BETWEEN_LAYERS = (
    "Add", "AveragePool", "Clip", "Concat", "GlobalAveragePool", "MaxPool", "Relu",
)  # fmt: skip

# Images that the quantizer runs at once.
_CALIBRATION_BATCH = 8


def check_onnx_installed(dtype):
    """Raise ImportError if a package is missing that `write_onnx` needs."""
    if dtype == "int8":  # its extra includes the other one, so it is named first
        import_optional(
            "onnxruntime.quantization", extra="int8", purpose="dtype='int8' of to_onnx"
        )
    for package in ("onnx", "onnxscript"):
        import_optional(package, extra="onnx", purpose="Exporting to ONNX")


def write_onnx(path, export):
    """Write an ONNX file.

    Parameters
    ----------
    path : path-like
    export : Export

    Raises
    ------
    ValueError
        If the network does something that ONNX or the dtype cannot express.
    """
    proto = convert_to_onnx(export.network, export.example, export.output_name)
    if export.dtype == "float16":
        _store_in_float16(proto)
    elif export.dtype == "int8":
        proto = _quantized(proto, export)
    del proto.metadata_props[:]
    for key, value in export.notes.items():
        proto.metadata_props.add(key=key, value=json.dumps(value, default=str))
    write_atomically(path, proto.SerializeToString())


def convert_to_onnx(network, example, output_name):
    """Return the graph of a network, for any number of images.

    Parameters
    ----------
    network : PixelsToResult
    example : Tensor of uint8, shape (n_images, height, width, 3)
    output_name : str

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    ValueError
        If the network does something that ONNX cannot express, or only for as many
        images as in the example.
    """
    with explained(network, _EXPORTED), warnings.catch_warnings(), torch.no_grad():
        # The exporter warns about its own parts.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["images"],
            output_names=[output_name],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    if not proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param:
        raise fixed_number_error(network, _EXPORTED)
    # Where in which Python file each node comes from.
    for one in (*proto.graph.node, *proto.graph.value_info):
        del one.metadata_props[:]
    return proto


def _store_in_float16(proto):
    """Store matrices and kernels in float16. They are still computed with in float32.

    A graph that computes in float16 is slower on processors without such arithmetic,
    and what it computes can overflow.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = [
        one
        for one in proto.graph.initializer
        if one.data_type == TensorProto.FLOAT and len(one.dims) > 1
    ]
    values = {one.name: numpy_helper.to_array(one) for one in weights}
    check_fits_float16(values.items())
    casts = []
    for one in weights:
        stored = f"{one.name}_float16"
        casts.append(
            helper.make_node("Cast", [stored], [one.name], to=TensorProto.FLOAT)
        )
        halved = values[one.name].astype(np.float16)
        one.CopyFrom(numpy_helper.from_array(halved, stored))
    nodes = [*casts, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def _quantized(proto, export):
    """Return the graph with weights and values of 8 bits."""
    import onnx
    from onnxruntime import quantization

    images = export.calibration

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            starts = range(0, len(images), _CALIBRATION_BATCH)
            self._batches = (images[k : k + _CALIBRATION_BATCH] for k in starts)

        def get_next(self):
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch}

    # The quantizer warns that a preparation is missing, which the exporter has done.
    proto.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    nodes = list(proto.graph.node)
    kinds = {node.op_type for node in nodes}
    quantized_kinds = list(_LAYERS)
    # Sums in transformers have a few very large values, which 8 bits cannot span.
    if "LayerNormalization" not in kinds:
        quantized_kinds += _BETWEEN_LAYERS
    is_layer = [node.op_type in _LAYERS for node in nodes]
    last = max(np.flatnonzero(is_layer), default=len(nodes))
    # The root logger would otherwise get a handler at the quantizer's first message.
    no_output = logging.NullHandler()
    logging.getLogger().addHandler(no_output)
    try:
        with (
            explained(export.network, "quantized by ONNX Runtime"),
            tempfile.TemporaryDirectory(prefix="skdeepfeat-int8-") as folder,
        ):
            path = pathlib.Path(folder, "quantized.onnx")
            quantization.quantize_static(
                proto,
                path,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                # 7 bits for weights: sums of products of 8 bits overflow on processors
                # without VNNI, and the one that will run the file is unknown.
                reduce_range=True,
                op_types_to_quantize=quantized_kinds,
                # The last nodes stay in float32, so that outputs keep full precision.
                nodes_to_exclude=[node.name for node in nodes[last + 1 :]],
                extra_options={
                    "MatMulConstBOnly": True,
                    "OpTypesToExcludeOutputQuantization": ["Gemm"],
                },
            )
            return onnx.load(path)
    finally:
        logging.getLogger().removeHandler(no_output)
