"""Pretrained networks as transformers: from images to features.

Images, networks and the cache are wired together here.
"""

from ._cloning import HandsOutParameters
from ._extract import Extraction, extract_features
from ._extract_to import check_destination, write_features
from ._failures import list_failures, warn_of
from ._feature_extractor import PretrainedFeatureExtractor
from ._feature_mapper import FeatureMapper
from ._finite import non_finite_error
from ._image_input import tag_image_input, validate_images
from ._pixels import load_pixels
from ._settings import ExtractionSettings

__all__ = [
    "Extraction",
    "ExtractionSettings",
    "FeatureMapper",
    "HandsOutParameters",
    "PretrainedFeatureExtractor",
    "check_destination",
    "extract_features",
    "list_failures",
    "load_pixels",
    "non_finite_error",
    "tag_image_input",
    "validate_images",
    "warn_of",
    "write_features",
]
