"""From X to pixels: which images there are, their digests, decoding, geometry."""

from ._folder import find_images, load_image_folder
from ._geometry import fit_to_network
from ._image_source import FileIndex, ImageSource
from ._make_source import make_image_source
from ._on_device import EncodedJpeg, check_jpeg_decoder, fit_on_device
from ._thread_pool import ByteBudget, ThreadPool

__all__ = [
    "ByteBudget",
    "EncodedJpeg",
    "FileIndex",
    "ImageSource",
    "ThreadPool",
    "check_jpeg_decoder",
    "find_images",
    "fit_on_device",
    "fit_to_network",
    "load_image_folder",
    "make_image_source",
]
