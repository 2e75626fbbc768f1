"""The one way from X to rows or pixels: images, necks and cache wired together."""

from ._failures import list_failures, warn_of
from ._features import Extraction, extract_features
from ._finite import non_finite_error
from ._pixels import load_pixels
from ._settings import ExtractionSettings
from ._writing import check_destination, write_features

__all__ = [
    "Extraction",
    "ExtractionSettings",
    "check_destination",
    "extract_features",
    "list_failures",
    "load_pixels",
    "non_finite_error",
    "warn_of",
    "write_features",
]
