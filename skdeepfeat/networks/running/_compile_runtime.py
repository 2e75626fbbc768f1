"""Networks compiled by torch.compile, on a GPU or a CPU.

Only on request: compiling takes from 15 s to minutes, and on a CPU OpenVINO is faster
and ready in 1 to 4 s. CUDA graphs are not used. They save the time to launch kernels,
which two threads for each device hide at batches of 128 images: ResNet-50 ran 4 %
faster with one (benchmarks/README.md). The compiled network has not been measured yet.
"""

import functools

import numpy as np
import torch

from ..._utils._device import compute_context
from ._torch_runtime import Transfer

TITLE = "torch.compile"
BATCH_PIXELS = 8 * 224 * 224

# A batch of 1 would be compiled separately: torch takes 1 for a constant size.
_MIN_BATCH_SIZE = 2


def check(device, precision):
    """Raise nothing: torch.compile is always installed."""


def pays(device, precision, n_pixels):
    """Return False: it is never selected automatically."""
    return False


def compile_network(module, pixels, device, precision):
    """Return a function that makes a `CompiledNetwork`.

    Parameters
    ----------
    module : PixelsToRows
    pixels : Tensor of uint8, shape (n_images, height, width, 3)
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
        What `compute_context` does in this precision is compiled.
    """
    # torch.compile would stop at the hooks that catch the layers. An exporter traces
    # them, and removes the operations after the last layer.
    batch = torch.export.Dim.DYNAMIC
    with compute_context(device, precision):
        exported = torch.export.export(
            module, (pixels,), dynamic_shapes=({0: batch},), strict=False
        )
    # Frozen weights can be folded and rearranged in advance.
    program = torch.compile(exported.module(), options={"freezing": True})
    make = functools.partial(CompiledNetwork, program, device, precision)
    # The first call compiles: now, while a failure can still be reported as such.
    make()(pixels.cpu())
    return make


class CompiledNetwork:
    """One user's access to a compiled function.

    Parameters
    ----------
    program : callable
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
    """

    def __init__(self, program, device, precision):
        self._program = program
        self._device = device
        self._precision = precision
        self._transfer = Transfer(device)

    def __call__(self, batch):
        """Return the rows of a batch; the parameters are those of `EagerNetwork`."""
        n_images = len(batch)
        if n_images < _MIN_BATCH_SIZE:
            padding = batch.new_zeros(_MIN_BATCH_SIZE - n_images, *batch.shape[1:])
            batch = torch.cat([batch, padding])
        with compute_context(self._device, self._precision), self._transfer.stream():
            batch = self._transfer.send(batch)
            torch._dynamo.mark_dynamic(batch, 0)
            rows = [rows[:n_images].float() for rows in self._program(batch)]
            return [np.asarray(one.cpu()) for one in rows]
