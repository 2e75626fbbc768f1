"""From a name to a network that turns images into features.

It has the names, architectures and weights of networks with their preprocessing,
truncates networks, pools their outputs and runs batches. It does not depend on image
files, or on what the features are used for.
"""

from ._modules import copy_module, module_on_cpu
from ._neck import Neck, resolve_neck
from ._parameter_errors import choice_error
from .probing._fingerprint import is_below_float32
from .probing._list_layers import list_layers
from .sources._hub_config import read_hub_config
from .sources._network_sources import list_models
from .sources._preprocessing_parameter import read_preprocessing

__all__ = [
    "Neck",
    "choice_error",
    "copy_module",
    "is_below_float32",
    "list_layers",
    "list_models",
    "module_on_cpu",
    "read_hub_config",
    "read_preprocessing",
    "resolve_neck",
]
