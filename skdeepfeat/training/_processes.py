"""Training with several processes, one a device, as ``torchrun`` starts them."""

import os

import torch
import torch.distributed as dist

__all__ = ["Processes"]


class Processes:
    """The processes that train one model together; by default this one alone.

    Every process holds the whole data and the whole model, computes the gradient of
    its share of each batch, and adds up the others'. That is the same step as one
    process makes of the whole batch, so a result does not depend on their number
    (but for batch normalization, which sees shares of a batch).

    `torch.nn.parallel.DistributedDataParallel` does the same with communication and
    computation overlapping, but counts on a forward pass that runs to its end, and a
    neck stops early.

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
        """Return the device of this process, where each has one of its own."""
        if (
            device.type == "cuda"
            and device.index is None
            and "LOCAL_RANK" in os.environ
        ):
            return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        return device

    def share(self, n):
        """Return which of the `n` places of a batch are this process's."""
        return slice(self.rank, n, self.size)

    def add_gradients(self, parameters):
        """Add up what all processes have as gradients."""
        if self.size == 1:
            return
        with_gradient = [p for p in parameters if p.requires_grad]
        for parameter in with_gradient:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._reduce([p.grad for p in with_gradient], divide=False)

    def average(self, tensors):
        """Let all have the mean of each tensor; counters stay as they are."""
        if self.size > 1:
            floats = [t for t in tensors if t.dtype.is_floating_point]
            self._reduce(floats, divide=True)

    def sum(self, value, device):
        """Return the sum of a number over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64)
        # MPS knows no float64; gloo takes the CPU's, nccl only its own.
        tensor = tensor.to(device) if device.type == "cuda" else tensor
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
        if isinstance(holder, torch.nn.Module):
            tensors = [*holder.parameters(), *holder.buffers()]
        else:
            tensors = holder.tensors.values()
        for tensor in tensors:
            # In one piece: an own copy where the memory is in another order.
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, 0)
            tensor.detach().copy_(whole)

    def same_for_all(self, value):
        """Return the first process's value, which must be picklable, to all."""
        if self.size == 1:
            return value
        values = [value]
        on_gpu = self._device.type == "cuda"
        dist.broadcast_object_list(values, 0, device=self._device if on_gpu else None)
        return values[0]

    def _reduce(self, tensors, divide):
        if not tensors:
            return
        # One message instead of hundreds.
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        dist.all_reduce(flat)
        if divide:
            flat /= self.size
        start = 0
        for tensor in tensors:
            part = flat[start : start + tensor.numel()]
            tensor.detach().copy_(part.view(tensor.shape))
            start += tensor.numel()
