"""Training a head, and a body with it: loop, schedules, losses, augmentation.

This package knows nothing of image files, and of networks only that they are modules
with stages.
"""

from ._activation_sizes import ActivationSizes
from ._augment import AUGMENTATIONS, Augmentation, crop_center
from ._averages import WeightAverage
from ._checkpoint import is_history, is_table
from ._data import FeatureData, PairData, PixelData, StackedPixels
from ._distillation import TaughtTargets, make_distillation_loss
from ._freezing import unfrozen_parts
from ._heads import fit_linear_head, fold_standardization, make_head, standardization
from ._loop import LoopSettings, TrainingRun, epochs_of_steps, seed_of
from ._losses import (
    CLASSIFICATION_LOSSES,
    REGRESSION_LOSSES,
    has_probabilities,
    make_loss,
)
from ._optimizers import OPTIMIZERS, make_optimizer
from ._pair_losses import PAIR_LOSSES, LossOfPairs, alignment, uniformity
from ._pair_views import PairViews
from ._resume import ResumableFit
from ._schedules import SCHEDULES
from ._state import named_tensors
from ._tensor_file import dump_tensors, parse_tensors

__all__ = [
    "AUGMENTATIONS",
    "CLASSIFICATION_LOSSES",
    "OPTIMIZERS",
    "REGRESSION_LOSSES",
    "SCHEDULES",
    "ActivationSizes",
    "Augmentation",
    "FeatureData",
    "LoopSettings",
    "LossOfPairs",
    "PAIR_LOSSES",
    "PairData",
    "PairViews",
    "PixelData",
    "ResumableFit",
    "StackedPixels",
    "TaughtTargets",
    "TrainingRun",
    "WeightAverage",
    "alignment",
    "crop_center",
    "dump_tensors",
    "epochs_of_steps",
    "fit_linear_head",
    "fold_standardization",
    "has_probabilities",
    "is_history",
    "is_table",
    "make_distillation_loss",
    "make_head",
    "make_loss",
    "make_optimizer",
    "named_tensors",
    "parse_tensors",
    "seed_of",
    "standardization",
    "uniformity",
    "unfrozen_parts",
]
