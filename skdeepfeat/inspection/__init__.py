"""What a network has learned and looks at, as arrays and DataFrames.

Nothing here needs matplotlib: `skdeepfeat.plotting` draws these numbers.
"""

from ._activation_maps import activation_maps
from ._dead_features import dead_features
from ._deconvnet import deconvnet
from ._first_filters import first_filters
from ._top_patches import TopPatches, top_patches

__all__ = [
    "TopPatches",
    "activation_maps",
    "dead_features",
    "deconvnet",
    "first_filters",
    "top_patches",
]
