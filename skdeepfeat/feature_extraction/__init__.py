"""Pretrained networks as transformers: from images to features.

This package connects images, networks and the cache.
"""

from ._description import DescribedMixin, ExtractorDescription
from ._extraction import open_extraction
from ._failures import (
    errors_about,
    errors_at,
    list_failures,
    non_finite_error,
    warn_of,
)
from ._feature_extractor import PretrainedFeatureExtractor
from ._feature_mapper import FeatureMapper
from ._layer_features import LayerFeatures, extract_layers
from ._network_estimator import ImageEstimatorMixin, inspected
from ._pixels import load_pixels, load_readable
from ._settings import ExtractionSettings
from ._speed import ImageSeconds, seconds_per_image
from ._torch_feature_extractor import TorchFeatureExtractor

__all__ = [
    "DescribedMixin",
    "ExtractionSettings",
    "ExtractorDescription",
    "FeatureMapper",
    "ImageEstimatorMixin",
    "ImageSeconds",
    "LayerFeatures",
    "PretrainedFeatureExtractor",
    "TorchFeatureExtractor",
    "errors_about",
    "errors_at",
    "extract_layers",
    "inspected",
    "list_failures",
    "load_pixels",
    "load_readable",
    "non_finite_error",
    "open_extraction",
    "seconds_per_image",
    "warn_of",
]
