"""Deep transfer learning on images for scikit-learn.

Pretrained networks as ordinary estimators: as transformers, images in and features out,
each image through the network once; and with a new head, fine-tuned as classifiers and
regressors.
"""

from ._errors import (
    BadImageError,
    BadImageWarning,
    CacheWarning,
    OutOfMemoryError,
    TrainingDivergedError,
    WeightsNotFoundError,
)
from ._feature_extractor import PretrainedFeatureExtractor
from ._fine_tune_classifier import FineTuneClassifier
from ._fine_tune_regressor import FineTuneRegressor
from ._learning_check import LearningCheck, check_can_learn
from ._preprocessing import Preprocessing
from ._range_test import LearningRateRangeTest, learning_rate_range_test
from .cache import FeatureCache
from .images import load_image_folder
from .necks import list_layers, list_models

__all__ = [
    "BadImageError",
    "BadImageWarning",
    "CacheWarning",
    "FeatureCache",
    "FineTuneClassifier",
    "FineTuneRegressor",
    "LearningCheck",
    "LearningRateRangeTest",
    "OutOfMemoryError",
    "Preprocessing",
    "PretrainedFeatureExtractor",
    "TrainingDivergedError",
    "WeightsNotFoundError",
    "check_can_learn",
    "learning_rate_range_test",
    "list_layers",
    "list_models",
    "load_image_folder",
]

__version__ = "0.1.0.dev0"
