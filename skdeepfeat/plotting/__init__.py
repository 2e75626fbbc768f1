"""Displays in the form of scikit-learn's: of training, and of what networks see."""

from ._history import FineTuneHistoryDisplay
from ._layer_probe import LayerProbeDisplay
from ._learning_rate import LearningRateDisplay
from ._trajectory import TrajectoryDisplay

__all__ = [
    "FineTuneHistoryDisplay",
    "LayerProbeDisplay",
    "LearningRateDisplay",
    "TrajectoryDisplay",
]
