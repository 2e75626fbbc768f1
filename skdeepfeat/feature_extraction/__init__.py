"""Pretrained networks as transformers: from images to features.

This package connects images, networks and the cache.
"""

from ._extraction import open_extraction
from ._failures import list_failures, non_finite_error, warn_of
from ._feature_extractor import PretrainedFeatureExtractor
from ._feature_mapper import FeatureMapper
from ._image_estimator import ImageEstimatorMixin
from ._layer_features import LayerFeatures, extract_layers
from ._pixels import load_pixels
from ._settings import ExtractionSettings

__all__ = [
    "ExtractionSettings",
    "FeatureMapper",
    "ImageEstimatorMixin",
    "LayerFeatures",
    "PretrainedFeatureExtractor",
    "extract_layers",
    "list_failures",
    "load_pixels",
    "non_finite_error",
    "open_extraction",
    "warn_of",
]
