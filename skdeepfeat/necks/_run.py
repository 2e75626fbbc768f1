"""Running a batch through a network, no further than the last wanted layer."""

import logging
import threading

import numpy as np
import torch

from .._device import compute_context, free_device_memory, is_out_of_memory
from .._errors import OutOfMemoryError
from ._copying import copy_network
from ._layer import first_tensor
from ._pooling import pool

__all__ = ["Runner", "run_truncated"]

logger = logging.getLogger(__name__)


class _Stop(BaseException):
    """The last wanted layer is done.

    Not an Exception, so that a network's own ``except Exception`` lets it pass.
    """


def run_truncated(network, images, outputs, probe):
    """Run a network until all wanted layers are known, and pool them.

    Parameters
    ----------
    network : Module
        In evaluation mode. Its hooks are the same afterwards.
    images : Tensor, shape (batch, 3, height, width)
        Normalised.
    outputs : sequence of Output
    probe : Probe

    Returns
    -------
    list of Tensor, shape (batch, n_features)
        float32, in the order of `outputs`.
    """
    catcher = _Catcher(outputs, probe)
    try:
        catcher.attach(network)
        _forward(network, images, catcher, probe)
    except _Stop:
        pass
    finally:
        catcher.detach()
    missing = [one.layer for one in outputs if one.layer not in catcher.rows]
    if missing:
        raise RuntimeError(
            f"The layers {missing} of {type(network).__name__} ran when the network "
            "was examined, but not now: its forward depends on more than the image."
        )
    return [catcher.rows[one.layer] for one in outputs]


def _forward(network, images, catcher, probe):
    """Call the network; what hooks cannot see is caught here."""
    if "neck" in catcher.wanted and probe.has_pre_logits:
        features = network.forward_features(images)
        catcher.take("neck", network.forward_head(features, pre_logits=True))
        if catcher.is_complete():
            return
        result = network.forward_head(features)
    else:
        result = network(images)
        if probe.neck_module is None:
            catcher.take("neck", result)
    catcher.take("output", result)


class _Catcher:
    """The rows of the wanted layers, caught by hooks as the layers run."""

    def __init__(self, outputs, probe):
        self.wanted = {one.layer: one for one in outputs}
        self.rows = {}
        self._neck_module = probe.neck_module
        self._handles = []
        self._calls = 0
        last = max(outputs, key=lambda one: one.source.order)
        self._last = last.layer if self._is_hooked(last.layer) else None

    def _is_hooked(self, name):
        return name != "output" and (name != "neck" or self._neck_module is not None)

    def attach(self, network):
        for name in filter(self._is_hooked, self.wanted):
            module = network.get_submodule(
                self._neck_module if name == "neck" else name
            )
            if name == "neck":
                handle = module.register_forward_pre_hook(
                    self._input_hook(name), with_kwargs=True
                )
            else:
                handle = module.register_forward_hook(self._output_hook(name))
            self._handles.append(handle)

    def _input_hook(self, name):
        def hook(module, args, kwargs):
            self._arrived(name, [*args, *kwargs.values()])

        return hook

    def _output_hook(self, name):
        def hook(module, args, output):
            self._arrived(name, output)

        return hook

    def _arrived(self, name, value):
        self.take(name, value)
        if name == self._last:
            self._calls += 1
            # A module that is used several times counts where it is used last.
            done = self._calls >= self.wanted[name].source.n_calls
            # An exporter wants to see each call return, and drops what nobody uses.
            if done and not torch.compiler.is_exporting():
                raise _Stop

    def take(self, name, value):
        """Pool at once: the map itself is then free to be given up or overwritten."""
        if name in self.wanted:
            one = self.wanted[name]
            self.rows[name] = pool(first_tensor(value), one.source, one.pooling)

    def is_complete(self):
        return self.rows.keys() >= self.wanted.keys()

    def detach(self):
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class Runner:
    """Turns batches of images into rows of features on one device.

    Parameters
    ----------
    network : Module
        On `device`, in evaluation mode, used by nobody else.
    outputs : sequence of Output
    probe : Probe
    preprocessing : Preprocessing
        Its mean and std are applied here, on the device.
    device : torch.device
    precision : {"float32", "bfloat16", "float16"}
    """

    def __init__(self, network, outputs, probe, preprocessing, device, precision):
        self._network = network
        self._outputs = outputs
        self._probe = probe
        self._device = device
        self._precision = precision
        self._channels_last = True
        self._dtype = _dtype_of(network)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(preprocessing.mean, device=device).reshape(shape)
        self._std = torch.tensor(preprocessing.std, device=device).reshape(shape)
        self._largest_fit = None
        self._lock = threading.Lock()

    def __call__(self, batch):
        """Return the features of a batch.

        When the device's memory does not suffice, the batch is run in halves, and
        later batches in parts of the size that did fit.

        Parameters
        ----------
        batch : ndarray or Tensor of uint8, shape (n_images, height, width, 3)

        Returns
        -------
        list of ndarray of float32, shape (n_images, n_features)
            One for each wanted layer.

        Raises
        ------
        OutOfMemoryError
            If a single image is too much.
        """
        if self._network is None:
            raise RuntimeError("the network was given back: load it again")
        batch = torch.as_tensor(batch)
        rows = [
            np.empty((len(batch), one.n_features), np.float32) for one in self._outputs
        ]
        start = 0
        with self._lock:
            while start < len(batch):
                size = min(self._largest_fit or len(batch), len(batch) - start)
                part, cause = self._try(batch[start : start + size])
                if part is None:
                    self._shrink(size, tuple(batch.shape[1:3]), cause)
                    continue
                for whole, piece in zip(rows, part, strict=True):
                    whole[start : start + size] = piece
                start += size
        return rows

    def close(self):
        """Let go of the network, so that the device's memory can be given back."""
        self._network = None

    def _try(self, batch):
        """Return (rows, None), or (None, cause) when memory ran out."""
        try:
            return self._compute(batch), None
        except Exception as error:
            if self._channels_last and "view size is not compatible" in str(error):
                self._use_contiguous()
                return self._try(batch)
            if not is_out_of_memory(error):
                raise
            # Leaving this block frees the traceback and with it the tensors.
            return None, str(error).partition("\n")[0][:200]

    def _compute(self, batch):
        with compute_context(self._device, self._precision):
            images = self._normalise(batch)
            rows = run_truncated(self._network, images, self._outputs, self._probe)
            return [row.cpu().numpy() for row in rows]

    def _normalise(self, batch):
        # Permuting leaves the channels last in memory; uint8 is the least to transfer.
        images = batch.to(self._device).permute(0, 3, 1, 2).to(torch.float32)
        images = images.div_(255).sub_(self._mean).div_(self._std)
        if not self._channels_last:
            images = images.contiguous()
        return images.to(self._dtype) if self._precision == "float32" else images

    def _use_contiguous(self):
        """Go on with channels first: some networks' `view` cannot do otherwise."""
        logger.debug("%s needs contiguous images", type(self._network).__name__)
        self._channels_last = False
        # A copy, because the weights as they are may be shared.
        self._network = copy_network(
            self._network, memory_format=torch.contiguous_format
        )

    def _shrink(self, size, shape, cause):
        free_device_memory(self._device)
        if size == 1:
            raise OutOfMemoryError(
                f"Not even one image of {shape[0]} x {shape[1]} pixels fits into the "
                f"memory of {self._device} ({cause}). End what else uses that memory, "
                "or choose a smaller 'image_size', a smaller 'model', "
                "precision='bfloat16' or device='cpu'."
            )
        if self._largest_fit is None:
            logger.warning(
                "a batch of %d images does not fit into the memory of %s; "
                "going on with smaller ones",
                size,
                self._device,
            )
        self._largest_fit = size // 2


def _dtype_of(network):
    floating = (p.dtype for p in network.parameters() if p.dtype.is_floating_point)
    return next(floating, torch.float32)
