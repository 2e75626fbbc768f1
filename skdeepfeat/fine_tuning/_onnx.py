"""A tuned network as one ONNX file, from pixels to predictions."""

import json
import logging
import warnings

import torch
from torch import nn

from .._utils._atomic_file import write_atomically
from .._utils._optional import import_optional

logger = logging.getLogger(__name__)

# Not 1, which the exporter would treat as a constant.
_N_EXAMPLES = 2


class _PixelsToResult(nn.Module):
    """From decoded pixels to the results of the estimator."""

    def __init__(self, neck, head, finish):
        super().__init__()
        self.neck = neck
        self.head = head
        self.finish = finish

    def forward(self, images):
        return self.finish(self.head(self.neck(images.permute(0, 3, 1, 2))))


class ScaleTargets(nn.Module):
    """Scale the outputs of a regressor to its targets.

    Parameters
    ----------
    mean, scale : ndarray of float, shape (n_targets,)
    is_vector : bool
        Whether there is one target per sample, without an axis.
    """

    def __init__(self, mean, scale, is_vector):
        super().__init__()
        # In float64, as in the estimator: targets such as years need more digits than
        # float32 has.
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float64))
        self.is_vector = is_vector

    def forward(self, outputs):
        """Return the targets."""
        values = outputs.to(torch.float64) * self.scale + self.mean
        return values[:, 0] if self.is_vector else values


def export_network(path, neck, head, finish, output_name, notes):
    """Write an ONNX file.

    Parameters
    ----------
    path : path-like
    neck : networks.Neck
        With the tuned network.
    head : Module
    finish : Module
        From the outputs of the head to the result, such as a softmax.
    output_name : str
        The name of the result in the file.
    notes : dict of str to JSON types
        Metadata of the file.

    Raises
    ------
    ImportError
        Without the packages of the extra ``[onnx]``.
    ValueError
        If the network does something that ONNX cannot express.
    """
    for package in ("onnx", "onnxscript"):
        import_optional(package, extra="onnx", purpose="Exporting to ONNX")
    body = neck.trainable()
    network = _PixelsToResult(body, head, finish).eval().requires_grad_(False)
    shape = (_N_EXAMPLES, *neck.preprocessing.crop, 3)
    program = _export(network, torch.zeros(shape, dtype=torch.uint8), output_name)
    proto = program.model_proto
    for key, value in notes.items():
        proto.metadata_props.add(key=key, value=json.dumps(value, default=str))
    write_atomically(path, proto.SerializeToString())


def _export(network, images, output_name):
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter warns about its own parts.
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                network,
                (images,),
                input_names=["images"],
                output_names=[output_name],
                dynamic_shapes={"images": {0: torch.export.Dim("n")}},
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # networks may run any code
        logger.debug("the exporter failed", exc_info=True)
        name = type(network.neck.network).__name__
        cause = error.__cause__ or error
        first = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
        raise ValueError(
            f"The network {name} cannot be exported to ONNX: {first}"
        ) from error
