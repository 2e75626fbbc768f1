"""From a name to a network that turns images into features.

Names, architectures, weights and their preprocessing; truncation; pooling; running a
batch. This room knows nothing of files of images, nor of what is done with the rows.
"""

from ._copying import copy_module
from ._hub_config import read_hub_config
from ._identity import is_below_float32
from ._list import list_layers
from ._names import list_models
from ._neck import Neck, resolve_neck
from ._parameters import read_preprocessing
from ._pooling import POOLINGS
from ._runtimes import RUNTIMES

__all__ = [
    "POOLINGS",
    "RUNTIMES",
    "Neck",
    "copy_module",
    "is_below_float32",
    "list_layers",
    "list_models",
    "read_hub_config",
    "read_preprocessing",
    "resolve_neck",
]
