"""Visualizations of networks and training, in the form of scikit-learn's Displays."""

from ._activation_maps import ActivationMapDisplay
from ._deconvnet import DeconvnetDisplay
from ._filters import FilterDisplay
from ._history import FineTuneHistoryDisplay
from ._learning_rate import LearningRateDisplay
from ._top_patches import TopPatchesDisplay

__all__ = [
    "ActivationMapDisplay",
    "DeconvnetDisplay",
    "FilterDisplay",
    "FineTuneHistoryDisplay",
    "LearningRateDisplay",
    "TopPatchesDisplay",
]
