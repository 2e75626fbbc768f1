"""Networks with other activations, without changing their modules or code.

A mode sees every function of torch that is called while it is entered: those in modules
and those in `forward`, in place or not. Functions are told apart by name, because torch
has several of each.
"""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from .._utils._parameter_errors import choice_error

__all__ = ["Connections", "RectifiedSignals"]

_OTHER_ACTIVATIONS = {
    "silu", "silu_", "gelu", "hardswish", "hardtanh", "hardtanh_", "leaky_relu",
    "leaky_relu_", "elu", "elu_", "selu", "selu_", "celu", "celu_", "mish", "prelu",
    "rrelu", "softplus", "logsigmoid", "softsign", "tanhshrink", "softshrink",
    "hardshrink", "threshold", "glu",
}  # fmt: skip
# Of pooled values, as in squeeze and excitation, they scale whole channels.
_GATES = {"sigmoid", "sigmoid_", "hardsigmoid", "tanh", "tanh_"}
_ATTENTION = {
    "softmax", "scaled_dot_product_attention", "multi_head_attention_forward",
}  # fmt: skip
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
        limit = _limit_of_relu(name, args, kwargs)
        if limit is not None:
            result = _RectifiedSignal.apply(args[0], limit, self._guided)
            # The value that a function in place returns may not be used.
            return args[0].copy_(result) if _is_in_place(name, kwargs) else result
        is_gate = name in _GATES and _has_positions(args[0])
        if is_gate or name in _OTHER_ACTIVATIONS or name in _ATTENTION:
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
        is_relu = _limit_of_relu(name, args, kwargs) is not None
        if is_relu or name in _OTHER_ACTIVATIONS - {"glu"} or name in _GATES:
            return args[0]
        if name in _ADAPTIVE_MAXIMA:
            return F.adaptive_avg_pool2d(*args[:2])
        if name in _MAXIMA:
            return _mean_pool(*args, **kwargs)
        return func(*args, **kwargs)


def _limit_of_relu(name, args, kwargs):
    """Return the largest value that a function returns if it is a ReLU, else None."""
    if name in ("relu", "relu_"):
        return float("inf")
    if name == "relu6":
        return 6.0
    if name in ("hardtanh", "hardtanh_"):  # nn.ReLU6 is one
        low, high = [*args[1:3], kwargs.get("min_val"), kwargs.get("max_val")][:2]
        return float(high) if low == 0 else None
    return None


def _is_in_place(name, kwargs):
    return name.endswith("_") or bool(kwargs.get("inplace"))


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
    weights = torch.ones(n_channels, 1, *pair, dtype=tensor.dtype, device=tensor.device)
    return F.conv2d(
        tensor,
        weights / weights[0].numel(),
        stride=stride or kernel_size,
        padding=padding,
        dilation=dilation,
        groups=n_channels,
    )


def _has_positions(tensor):
    """Return whether a tensor is a map or tokens, with more than one position."""
    if tensor.ndim == 4:
        return tensor.shape[1] * tensor.shape[2] > 1 and tensor.shape[2:].numel() > 1
    return tensor.ndim == 3 and tensor.shape[1] > 1
