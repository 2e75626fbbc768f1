"""From X to pixels: which images there are, their digests, decoding, geometry."""

from ._budget import ByteBudget
from ._folder import find_images, load_image_folder
from ._geometry import fit_to_network
from ._on_device import check_jpeg_decoder, fit_on_device
from ._source import FileMemo, ImageSource, make_image_source
from ._thread_pool import ThreadPool

__all__ = [
    "ByteBudget",
    "FileMemo",
    "ImageSource",
    "ThreadPool",
    "check_jpeg_decoder",
    "find_images",
    "fit_on_device",
    "fit_to_network",
    "load_image_folder",
    "make_image_source",
]
