"""The way of a batch to a device."""

import torch

__all__ = ["Transfer"]


class Transfer:
    """Sends batches to a device; to a GPU beside what other threads compute there.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device):
        self._device = device
        self._stream = None
        if device.type == "cuda":
            # Of its own, so that its copies go on while another thread's network runs.
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def stream(self):
        """Return a context in which what is queued on a GPU is queued on one stream."""
        return torch.cuda.stream(self._stream)  # of None, nothing at all

    def send(self, batch):
        """Return a tensor on the device, perhaps before it has arrived there."""
        if self._stream is not None and not batch.is_cuda:
            batch = batch.pin_memory()  # what is not pinned is copied while all wait
        return batch.to(self._device, non_blocking=True)
