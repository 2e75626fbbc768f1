"""Training with several processes, one per device, as ``torchrun`` starts them."""

import os

import torch
import torch.distributed as dist

from .._utils._device import resolve_device
from ._state import named_tensors


class Processes:
    """The processes that train one model together, by default only this one.

    Every process holds all data and the whole model, and computes the gradient of its
    part of each batch. The gradients of all processes are added. One process would make
    the same step with the whole batch, so the result does not depend on their number,
    except for batch normalization, which sees parts of a batch.

    `torch.nn.parallel.DistributedDataParallel` computes the same gradients, also with
    uneven parts, but does not fit here. It cannot repeat a backward pass that ran out
    of memory, because some sums have been exchanged already. A process without images,
    in a batch smaller than the number of processes, makes the others wait. Layers that
    are unfrozen later need a new wrapper.

    Attributes
    ----------
    rank, size : int
        The number of this process, and how many there are.
    """

    def __init__(self, device):
        self._device = device
        if not dist.is_available():
            self.rank, self.size = 0, 1
            return
        launched = int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ
        if launched and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        together = dist.is_initialized()
        self.rank = dist.get_rank() if together else 0
        self.size = dist.get_world_size() if together else 1

    @staticmethod
    def own_device(device):
        """Return the torch device that a `device` parameter means in this process.

        With ``torchrun``, each process has a GPU of its own, unless the parameter has
        the number of one.
        """
        found = resolve_device(device)
        has_number = device != "auto" and torch.device(device).index is not None
        if found.type == "cuda" and not has_number and "LOCAL_RANK" in os.environ:
            return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        return found

    def part(self, n):
        """Return which of the `n` positions of a batch belong to this process."""
        return slice(self.rank, n, self.size)

    def add_gradients(self, parameters):
        """Replace gradients by their sums over all processes."""
        if self.size == 1:
            return
        with_gradient = [p for p in parameters if p.requires_grad]
        for parameter in with_gradient:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._reduce([p.grad for p in with_gradient], divide=False)

    def average(self, tensors):
        """Replace tensors by their means over all processes, except counters."""
        if self.size > 1:
            floats = [t for t in tensors if t.dtype.is_floating_point]
            self._reduce(floats, divide=True)

    def sum(self, value):
        """Return the sum of a number over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        # MPS has no float64. gloo takes tensors of the CPU, nccl only those of CUDA.
        tensor = tensor.to(self._device) if self._device.type == "cuda" else tensor
        dist.all_reduce(tensor)
        return tensor.item()

    def copy_from_first(self, holder):
        """Give every process the weights of the first.

        Parameters
        ----------
        holder : Module or WeightAverage
        """
        if self.size == 1:
            return
        is_module = isinstance(holder, torch.nn.Module)
        tensors = named_tensors(holder) if is_module else holder.tensors
        for tensor in tensors.values():
            # `broadcast` needs contiguous memory.
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)

    def same_for_all(self, value):
        """Return the value of the first process in all. It must be picklable."""
        if self.size == 1:
            return value
        values = [value]
        on_gpu = self._device.type == "cuda"
        dist.broadcast_object_list(values, 0, device=self._device if on_gpu else None)
        return values[0]

    def _reduce(self, tensors, divide):
        if not tensors:
            return
        # One message instead of one per tensor.
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        dist.all_reduce(flat)
        if divide:
            flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view(tensor.shape))
