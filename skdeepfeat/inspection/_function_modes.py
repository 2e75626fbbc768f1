"""Networks with other activations, without changing their modules or code.

A mode sees every function of torch that is called while it is entered: those in modules
and those in `forward`, in place or not. Functions are told apart by name, because torch
has several of each.
"""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .._utils._activations import (
    GATES,
    OTHER_ACTIVATIONS,
    is_other_activation,
    limit_of_relu,
)
from .._utils._parameter_errors import choice_error

_MAXIMA = {"max_pool2d", "max_pool2d_with_indices"}
_ADAPTIVE_MAXIMA = {"adaptive_max_pool2d", "adaptive_max_pool2d_with_indices"}


class RectifiedSignals(TorchFunctionMode):
    """Backward passes through ReLU as in a deconvnet.

    The gradient passes where it is positive, wherever the input of the ReLU was.

    Parameters
    ----------
    guided : bool
        Whether the input of the ReLU has to be positive as well.
    name : str
        The network's name, for the error about other activations.
    """

    def __init__(self, guided, name):
        super().__init__()
        self._guided = guided
        self._name = name

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.__name__
        limit = limit_of_relu(name, args, kwargs)
        if limit is not None:
            result = _RectifiedSignal.apply(args[0], limit, self._guided)
            is_in_place = name.endswith("_") or kwargs.get("inplace")
            # The value that a function in place returns may not be used.
            return args[0].copy_(result) if is_in_place else result
        if is_other_activation(name, args):
            raise choice_error(
                "estimator",
                "one with a network whose activations are ReLU, such as 'resnet50', "
                f"'vgg16' or 'efficientnet_lite0'. A deconvnet is not defined through "
                f"{name}. activation_maps(method='gradcam') takes any network",
                self._name,
            )
        return func(*args, **kwargs)


class _RectifiedSignal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, limit, guided):
        result = inputs.clamp(0, limit)
        ctx.limit = limit
        if guided:
            ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx, signal):
        signal = signal.clamp(min=0)
        for result in ctx.saved_tensors:
            signal = signal * ((result > 0) & (result < ctx.limit))
        return signal, None, None


class Connections(TorchFunctionMode):
    """Passes in which every connection counts, whatever the values are.

    Activations are left out, and maxima are means. Gradients are then zero only where
    there is no connection.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.__name__
        is_relu = limit_of_relu(name, args, kwargs) is not None
        if is_relu or name in OTHER_ACTIVATIONS - {"glu"} or name in GATES:
            return args[0]
        if name in _ADAPTIVE_MAXIMA:
            return F.adaptive_avg_pool2d(*args[:2])
        if name in _MAXIMA:
            return _mean_pool(*args, **kwargs)
        return func(*args, **kwargs)


def _mean_pool(
    tensor, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, **kwargs
):
    """Return means over the windows of a max-pool."""
    # Each window as a convolution with ones, because means have no dilation.
    n_channels = tensor.shape[1]
    pair = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * 2
    if ceil_mode:
        # The last window may be outside of the image in part.
        extra = stride if isinstance(stride, int) else max(stride or pair)
        tensor = F.pad(tensor, (0, extra - 1, 0, extra - 1))
    weights = tensor.new_ones(n_channels, 1, *pair)
    weights /= weights[0].numel()
    stride = stride or kernel_size
    return F.conv2d(tensor, weights, None, stride, padding, dilation, n_channels)
