"""The names that parameters with a growing number of choices take.

This module imports nothing, so the command line can read it before torch is imported.
A new choice is its name here and its implementation where the comment says.
"""

# networks/running/_poolings.py
POOLINGS = ("auto", "avg", "max", "gem", "flatten", "cls", "mean")

# networks/running/_NAME_runtime.py. "auto" selects the first that pays, else torch.
RUNTIMES = ("auto", "torch", "compile", "openvino")

# networks/sources/_NAME.py, in the order in which a bare name of a network is looked up
SOURCES = ("embedded", "torchvision", "timm")

# _utils/_device.py, DTYPES
PRECISIONS = ("float32", "tf32", "bfloat16", "float16")

# feature_extraction/_file_formats.py
FILE_FORMATS = (".parquet", ".npy", ".zarr")

# compression/_search.py, METHODS
COMPRESSION_METHODS = (
    "low_rank", "svd", "tucker", "tensor_train", "prune", "obd_weights"
)  # fmt: skip

# compression/_criteria.py, CRITERIA
PRUNING_CRITERIA = ("taylor", "obd", "apoz", "magnitude")

# compression/_timing.py, RUNTIMES
TIMED_RUNTIMES = ("torch", "openvino", "onnxruntime")

# What to do with an image that cannot be read.
ON_ERROR = ("raise", "nan")

# The limit of Pillow, above which it suspects a decompression bomb.
DEFAULT_MAX_PIXELS = 89_478_485
