"""From X to pixels: which images there are, their digests, decoding, geometry."""

from ._folder import find_images, load_image_folder
from ._geometry import fit_to_network
from ._source import DEFAULT_MAX_PIXELS, FileMemo, ImageSource, make_image_source

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FileMemo",
    "ImageSource",
    "find_images",
    "fit_to_network",
    "load_image_folder",
    "make_image_source",
]
