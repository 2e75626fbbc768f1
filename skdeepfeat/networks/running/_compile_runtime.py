"""A network compiled by torch.compile, on a GPU or a CPU.

Only on request: compiling takes from 15 s to minutes, and on a CPU OpenVINO is faster
and ready in one to four. CUDA graphs are left out: what they save is the launching of
kernels, which two feeders hide from each other at batches of 128 images, and torch
keeps them for each thread apart. Neither has been measured on a GPU yet.
"""

import numpy as np
import torch

from ..._utils._device import compute_context
from ._device_transfer import Transfer

__all__ = ["convert", "network"]

# A batch of one would be compiled once more: torch takes 1 for a size of its own.
_SMALLEST = 2


def convert(module, pixels, device, precision, n_threads):
    """Return a module as a compiled function, for any number of images.

    Parameters
    ----------
    module : PixelsToRows
    pixels : Tensor of uint8, shape (n_images, height, width, 3)
        To trace it with.
    device : torch.device
    precision : {"float32", "tf32", "bfloat16", "float16"}
        Compiled is what `compute_context` makes of float32.
    n_threads : int

    Returns
    -------
    callable
    """
    # torch.compile itself would stop at the hooks that catch the layers; an exporter
    # sees what they do. What lies behind the last layer falls away.
    batch = torch.export.Dim.DYNAMIC
    with compute_context(device, precision):
        exported = torch.export.export(
            module, (pixels,), dynamic_shapes=({0: batch},), strict=False
        )
    # Frozen weights can be folded and laid out beforehand.
    program = torch.compile(exported.module(), options={"freezing": True})
    # Compiled at the first call: now, when it can still be said that it failed.
    CompiledNetwork(program, device, precision)(pixels.cpu())
    return program


def network(compiled, device, precision):
    """Return one user's way to a compiled function, as `Runner` wants it."""
    return CompiledNetwork(compiled, device, precision)


class CompiledNetwork:
    """One user's way to a compiled function.

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
        with self._transfer.stream():
            return [np.asarray(rows.cpu()) for rows in self.queue(batch)]

    def queue(self, batch):
        """Return the rows as tensors on the device, which may still compute them."""
        n_images = len(batch)
        if n_images < _SMALLEST:
            filler = batch.new_zeros(_SMALLEST - n_images, *batch.shape[1:])
            batch = torch.cat([batch, filler])
        with compute_context(self._device, self._precision), self._transfer.stream():
            batch = self._transfer.send(batch)
            torch._dynamo.mark_dynamic(batch, 0)
            return [rows[:n_images].float() for rows in self._program(batch)]
