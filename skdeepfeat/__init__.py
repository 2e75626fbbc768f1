"""Deep transfer learning on images for scikit-learn.

Pretrained networks as ordinary estimators: as transformers, images in and features out,
each image through the network once; and with a new head, fine-tuned as classifiers and
regressors.
"""

import importlib
from typing import TYPE_CHECKING

from .exceptions import (
    BadFileError,
    BadImageError,
    BadImageWarning,
    BadItemError,
    BadItemWarning,
    CacheWarning,
    NonFiniteOutputError,
    OutOfMemoryError,
    TrainingDivergedError,
    WeightsNotFoundError,
)

if TYPE_CHECKING:  # for editors and type checkers, which do not run __getattr__
    from ._utils._preprocessing import Preprocessing
    from .cache import FeatureCache
    from .feature_extraction import (
        FeatureMapper,
        PretrainedFeatureExtractor,
        TorchFeatureExtractor,
    )
    from .fine_tuning import (
        FineTuneClassifier,
        FineTuneRegressor,
        LearningCheck,
        LearningRateRangeTest,
        check_can_learn,
        learning_rate_range_test,
    )
    from .images import load_image_folder
    from .model_selection import TransferAdvisor
    from .networks import list_layers, list_models
    from .self_supervised import Autoencoder, ConvAutoencoder, SelfSupervisedExtractor

__all__ = [
    "Autoencoder",
    "BadFileError",
    "BadImageError",
    "BadImageWarning",
    "BadItemError",
    "BadItemWarning",
    "CacheWarning",
    "ConvAutoencoder",
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
    "SelfSupervisedExtractor",
    "TorchFeatureExtractor",
    "TrainingDivergedError",
    "TransferAdvisor",
    "WeightsNotFoundError",
    "check_can_learn",
    "learning_rate_range_test",
    "list_layers",
    "list_models",
    "load_image_folder",
]

__version__ = "0.1.0.dev0"

# The other names are imported on first use (PEP 562). Importing torch takes seconds,
# and neither `skdeepfeat --help` nor a worker that only reads the cache needs it.
_HOMES = {
    "Autoencoder": "self_supervised",
    "ConvAutoencoder": "self_supervised",
    "FeatureCache": "cache",
    "FeatureMapper": "feature_extraction",
    "FineTuneClassifier": "fine_tuning",
    "FineTuneRegressor": "fine_tuning",
    "LearningCheck": "fine_tuning",
    "LearningRateRangeTest": "fine_tuning",
    "Preprocessing": "_utils._preprocessing",
    "PretrainedFeatureExtractor": "feature_extraction",
    "SelfSupervisedExtractor": "self_supervised",
    "TorchFeatureExtractor": "feature_extraction",
    "TransferAdvisor": "model_selection",
    "check_can_learn": "fine_tuning",
    "learning_rate_range_test": "fine_tuning",
    "list_layers": "networks",
    "list_models": "networks",
    "load_image_folder": "images",
}
_PACKAGES = (
    "cache",
    "compression",
    "feature_extraction",
    "fine_tuning",
    "images",
    "inspection",
    "model_selection",
    "networks",
    "plotting",
    "self_supervised",
    "text",
    "training",
)


def __getattr__(name):
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value  # from now on it is found without coming here
    return value


def __dir__():
    return sorted({*globals(), *__all__, *_PACKAGES})
