"""Visualizations of training, in the form of scikit-learn's Display classes."""

from ._history import FineTuneHistoryDisplay
from ._learning_rate import LearningRateDisplay

__all__ = ["FineTuneHistoryDisplay", "LearningRateDisplay"]
