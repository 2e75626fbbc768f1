"""The transfer of batches to a device."""

import torch


class Transfer:
    """Sends batches to a device; to a GPU while other threads compute there.

    Parameters
    ----------
    device : torch.device
    """

    def __init__(self, device):
        self._device = device
        self._stream = None
        if device.type == "cuda":
            # A separate stream copies while another thread's network runs.
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))

    def stream(self):
        """Return a context in which all work on a GPU is queued on one stream."""
        return torch.cuda.stream(self._stream)  # None stands for no GPU: no effect

    def send(self, batch):
        """Return a tensor on the device, which may arrive there later."""
        if self._stream is not None and not batch.is_cuda:
            batch = batch.pin_memory()  # without it, the copy would block
        return batch.to(self._device, non_blocking=True)
