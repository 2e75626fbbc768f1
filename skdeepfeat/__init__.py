"""Deep transfer learning on images for scikit-learn.

Pretrained networks as ordinary estimators: as transformers, images in and features out,
each image through the network once; and with a new head, fine-tuned as classifiers and
regressors.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for editors and type checkers, which do not run __getattr__
    from ._errors import (
        BadFileError,
        BadImageError,
        BadImageWarning,
        CacheWarning,
        NonFiniteOutputError,
        OutOfMemoryError,
        TrainingDivergedError,
        WeightsNotFoundError,
    )
    from ._feature_extractor import PretrainedFeatureExtractor
    from ._feature_mapper import FeatureMapper
    from ._fine_tune_classifier import FineTuneClassifier
    from ._fine_tune_regressor import FineTuneRegressor
    from ._learning_check import LearningCheck, check_can_learn
    from ._preprocessing import Preprocessing
    from ._range_test import LearningRateRangeTest, learning_rate_range_test
    from .cache import FeatureCache
    from .images import load_image_folder
    from .necks import list_layers, list_models

__all__ = [
    "BadFileError",
    "BadImageError",
    "BadImageWarning",
    "CacheWarning",
    "FeatureCache",
    "FeatureMapper",
    "FineTuneClassifier",
    "FineTuneRegressor",
    "LearningCheck",
    "LearningRateRangeTest",
    "NonFiniteOutputError",
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

# Names are imported when they are asked for first (PEP 562): torch takes seconds, which
# neither `skdeepfeat --help` nor a worker that only looks into the cache has to spend.
_HOMES = {
    "BadFileError": "_errors",
    "BadImageError": "_errors",
    "BadImageWarning": "_errors",
    "CacheWarning": "_errors",
    "FeatureCache": "cache",
    "FeatureMapper": "_feature_mapper",
    "FineTuneClassifier": "_fine_tune_classifier",
    "FineTuneRegressor": "_fine_tune_regressor",
    "LearningCheck": "_learning_check",
    "LearningRateRangeTest": "_range_test",
    "NonFiniteOutputError": "_errors",
    "OutOfMemoryError": "_errors",
    "Preprocessing": "_preprocessing",
    "PretrainedFeatureExtractor": "_feature_extractor",
    "TrainingDivergedError": "_errors",
    "WeightsNotFoundError": "_errors",
    "check_can_learn": "_learning_check",
    "learning_rate_range_test": "_range_test",
    "list_layers": "necks",
    "list_models": "necks",
    "load_image_folder": "images",
}
_ROOMS = ("cache", "images", "necks", "plotting", "training")


def __getattr__(name):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # from now on it is found without coming here
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_ROOMS})
