"""From X to pixels: which images there are, their digests, decoding, geometry."""

from ._decoding_processes import (
    N_AT_ONCE,
    DecodingProcesses,
    can_decode_in_processes,
)
from ._folder import find_images, load_image_folder
from ._geometry import fit_to_network
from ._make_source import make_image_source
from ._thread_pool import ByteBudget, ThreadPool

__all__ = [
    "N_AT_ONCE",
    "ByteBudget",
    "DecodingProcesses",
    "ThreadPool",
    "can_decode_in_processes",
    "find_images",
    "fit_to_network",
    "load_image_folder",
    "make_image_source",
]
