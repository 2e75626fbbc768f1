"""Deep transfer learning on images for scikit-learn.

Pretrained networks as ordinary transformers: images in, features out, and each image
through the network once.
"""

from ._errors import (
    BadImageError,
    BadImageWarning,
    CacheWarning,
    OutOfMemoryError,
    WeightsNotFoundError,
)
from ._feature_extractor import PretrainedFeatureExtractor
from ._preprocessing import Preprocessing
from .cache import FeatureCache
from .images import load_image_folder
from .necks import list_layers, list_models

__all__ = [
    "BadImageError",
    "BadImageWarning",
    "CacheWarning",
    "FeatureCache",
    "OutOfMemoryError",
    "Preprocessing",
    "PretrainedFeatureExtractor",
    "WeightsNotFoundError",
    "list_layers",
    "list_models",
    "load_image_folder",
]

__version__ = "0.1.0.dev0"
