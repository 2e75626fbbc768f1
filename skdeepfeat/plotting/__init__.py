"""Displays in the form of scikit-learn's: of training, and of what networks see."""

from ._confusion_gallery import ConfusionGalleryDisplay
from ._embedding import EmbeddingDisplay
from ._history import FineTuneHistoryDisplay
from ._layer_probe import LayerProbeDisplay
from ._learning_rate import LearningRateDisplay
from ._similarity import SimilarityDisplay
from ._top_losses import TopLossesDisplay
from ._trajectory import TrajectoryDisplay

__all__ = [
    "ConfusionGalleryDisplay",
    "EmbeddingDisplay",
    "FineTuneHistoryDisplay",
    "LayerProbeDisplay",
    "LearningRateDisplay",
    "SimilarityDisplay",
    "TopLossesDisplay",
    "TrajectoryDisplay",
]
