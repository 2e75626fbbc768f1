"""The values that options can take, each list written once.

The modules that implement the values import torch. The command line shows them in its
help without waiting for torch, so they are listed here.
"""

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FILE_FORMATS",
    "JPEG_DECODERS",
    "MODEL_SOURCES",
    "ON_ERROR",
    "POOLINGS",
    "PRECISIONS",
    "RUNTIMES",
]

FILE_FORMATS = (".parquet", ".npy", ".zarr")
JPEG_DECODERS = ("pillow", "device")
MODEL_SOURCES = ("embedded", "torchvision", "timm")
ON_ERROR = ("raise", "nan")
POOLINGS = ("auto", "avg", "max", "gem", "flatten", "cls", "mean")
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
RUNTIMES = ("auto", "torch", "compile", "openvino")

# Pillow's own limit, above which it suspects a decompression bomb.
DEFAULT_MAX_PIXELS = 89_478_485
