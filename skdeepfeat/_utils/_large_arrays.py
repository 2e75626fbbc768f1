"""Arrays that may be larger than the memory."""

import math
import tempfile

import numpy as np


def allocate(shape, dtype, max_bytes):
    """Return an array of zeros, in memory or, if it is large, in a temporary file.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype-like
    max_bytes : int
        Larger arrays are memory-mapped. Their file is removed with the last reference
        to the array, or when the process ends.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes <= max_bytes:
        return np.zeros(shape, dtype)
    # The file has no name, or loses it when it is closed, so that it is removed however
    # the process ends. The mapping keeps it alive.
    with tempfile.TemporaryFile(prefix="skdeepfeat-array-") as file:
        file.truncate(n_bytes)
        return np.memmap(file, dtype, "r+", shape=shape)
