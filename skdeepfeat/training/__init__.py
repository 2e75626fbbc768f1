"""Training a head, and a body behind it: loop, schedules, losses, augmentation.

This package knows nothing of image files, and of networks only that they are modules
with stages.
"""

from ._augment import AUGMENTATIONS, Augmentation, crop_centre
from ._averages import WeightAverage
from ._checkpoint import load_checkpoint, read_checkpoint_header, save_checkpoint
from ._data import FeatureData, PixelData
from ._freezing import first_trained_stage
from ._heads import fit_linear_head, fold_standardisation, make_head, standardisation
from ._loop import LoopSettings, TrainingRun, copy_state, seed_of
from ._losses import (
    CLASSIFICATION_LOSSES,
    REGRESSION_LOSSES,
    has_probabilities,
    make_loss,
)
from ._optimizers import OPTIMIZERS, make_optimizer
from ._processes import Processes
from ._schedules import SCHEDULES, learning_rate_factor

__all__ = [
    "AUGMENTATIONS",
    "CLASSIFICATION_LOSSES",
    "OPTIMIZERS",
    "REGRESSION_LOSSES",
    "SCHEDULES",
    "Augmentation",
    "FeatureData",
    "LoopSettings",
    "PixelData",
    "Processes",
    "TrainingRun",
    "WeightAverage",
    "copy_state",
    "crop_centre",
    "first_trained_stage",
    "fit_linear_head",
    "fold_standardisation",
    "has_probabilities",
    "learning_rate_factor",
    "load_checkpoint",
    "make_head",
    "make_loss",
    "make_optimizer",
    "read_checkpoint_header",
    "save_checkpoint",
    "seed_of",
    "standardisation",
]
