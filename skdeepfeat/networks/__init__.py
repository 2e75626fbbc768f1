"""From a name to a network that turns images into features.

It has the names, architectures and weights of networks with their preprocessing,
truncates networks, pools their outputs and runs batches. It does not depend on image
files, or on what the features are used for.
"""

from ._item_neck import N_PROBE_ITEMS, ItemNeck, resolve_item_neck
from ._layer_changes import (
    apply_changes,
    change_layer,
    changes_of,
    is_convolution,
    is_linear,
    merge_resizings,
)
from ._modules import (
    attribute_of,
    copy_module,
    copy_network,
    floating_dtype,
    module_on_cpu,
    zero_subnormal,
)
from ._neck import Neck, resolve_neck
from ._remembered_neck import RememberedNeck, known_neck
from ._row_neck import RowNeck
from ._tensor_train import TensorTrainLinear, multiply_adds_of_train
from .probing._fingerprint import is_below_float32
from .probing._list_layers import list_layers
from .running._frozen_part import LayerOutputs
from .running._openvino_runtime import convert as convert_to_openvino
from .running._openvino_runtime import import_openvino
from .sources._hub_config import read_hub_config
from .sources._network_sources import list_models
from .sources._preprocessing_parameter import read_preprocessing

__all__ = [
    "N_PROBE_ITEMS",
    "ItemNeck",
    "LayerOutputs",
    "Neck",
    "RememberedNeck",
    "RowNeck",
    "TensorTrainLinear",
    "apply_changes",
    "attribute_of",
    "change_layer",
    "changes_of",
    "convert_to_openvino",
    "copy_module",
    "copy_network",
    "floating_dtype",
    "import_openvino",
    "is_below_float32",
    "is_convolution",
    "is_linear",
    "known_neck",
    "list_layers",
    "list_models",
    "merge_resizings",
    "module_on_cpu",
    "multiply_adds_of_train",
    "read_hub_config",
    "read_preprocessing",
    "resolve_item_neck",
    "resolve_neck",
    "zero_subnormal",
]
