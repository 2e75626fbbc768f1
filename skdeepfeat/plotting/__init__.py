"""Displays in the form of scikit-learn's: of training, and of what networks see."""

from ._activation_maps import ActivationMapDisplay
from ._advice import AdviceDisplay
from ._compression import CompressionDisplay
from ._confusion_gallery import ConfusionGalleryDisplay
from ._deconvnet import DeconvnetDisplay
from ._embedding import EmbeddingDisplay
from ._filters import FilterDisplay
from ._history import FineTuneHistoryDisplay
from ._hypersphere import HypersphereDisplay
from ._layer_probe import LayerProbeDisplay
from ._learning_rate import LearningRateDisplay
from ._reconstruction import ReconstructionDisplay
from ._similarity import SimilarityDisplay
from ._top_losses import TopLossesDisplay
from ._top_patches import TopPatchesDisplay
from ._trajectory import TrajectoryDisplay

__all__ = [
    "ActivationMapDisplay",
    "AdviceDisplay",
    "CompressionDisplay",
    "ConfusionGalleryDisplay",
    "DeconvnetDisplay",
    "EmbeddingDisplay",
    "FilterDisplay",
    "FineTuneHistoryDisplay",
    "HypersphereDisplay",
    "LayerProbeDisplay",
    "LearningRateDisplay",
    "ReconstructionDisplay",
    "SimilarityDisplay",
    "TopLossesDisplay",
    "TopPatchesDisplay",
    "TrajectoryDisplay",
]
