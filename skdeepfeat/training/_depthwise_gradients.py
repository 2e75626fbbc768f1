"""Gradients of depthwise convolutions on a CPU.

torch takes up to a hundred times as long for the gradient of a large depthwise kernel
as for the convolution itself, above all in bfloat16. The gradient is itself a depthwise
convolution, of each channel of each image with its own kernel, for which torch is fast.
"""

import contextlib

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# For smaller kernels, torch is fast.
_LARGE_KERNEL = 5
_DTYPES = (torch.float32, torch.bfloat16)  # those of oneDNN's depthwise convolutions


def fast_depthwise_gradients(device):
    """Return a context of a forward pass whose gradients are computed in less time.

    They are the same up to rounding.

    Parameters
    ----------
    device : torch.device
        On which the network runs. Does nothing except on a CPU with AVX-512. With AVX2,
        torch's own gradients of some shapes take half as long as these.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    is_fast = torch.backends.mkldnn.is_available() and capability.startswith("AVX512")
    if device.type != "cpu" or not is_fast:
        return contextlib.nullcontext()
    return _DepthwiseGradients()


class _DepthwiseGradients(TorchFunctionMode):
    """Replaces `conv2d` where torch's gradient is slow."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is functional.conv2d and not kwargs and not types and _is_slow(*args):
            inputs, weight, bias, *geometry, _ = args
            if torch.is_autocast_enabled("cpu"):
                dtype = torch.get_autocast_dtype("cpu")
                inputs, weight = inputs.to(dtype), weight.to(dtype)
                bias = None if bias is None else bias.to(dtype)
            return _DepthwiseConvolution.apply(inputs, weight, bias, *geometry)
        return func(*args, **(kwargs or {}))


def _is_slow(inputs, weight, bias=None, *rest):
    if len(rest) != 4 or not all(map(_is_pair, rest[:3])):
        return False  # not called by a `Conv2d`, or with padding="same"
    stride, *_, groups = rest
    return (
        1 < groups == len(weight) == inputs.shape[1]
        and inputs.ndim == 4
        and inputs.dtype in _DTYPES
        and weight.requires_grad
        and torch.is_grad_enabled()
        and (
            _is_large(weight) or (max(stride) > 1 and torch.is_autocast_enabled("cpu"))
        )
    )


def _is_pair(value):
    return isinstance(value, tuple) and len(value) == 2


def _is_large(weight):
    return max(weight.shape[2:]) >= _LARGE_KERNEL


class _DepthwiseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs, weight, bias, *geometry):
        ctx.save_for_backward(inputs, weight)
        ctx.geometry = geometry
        return functional.conv2d(inputs, weight, bias, *geometry, len(weight))

    @staticmethod
    def backward(ctx, gradients):
        inputs, weight = ctx.saved_tensors
        of_inputs = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            # With strides, torch is slow in bfloat16, but not in float32.
            dtype = inputs.dtype if max(ctx.geometry[0]) == 1 else torch.float32
            of_inputs, _ = _by_torch(
                gradients.to(dtype),
                torch.empty_like(inputs, dtype=dtype),  # only its shape counts
                weight.to(dtype),
                ctx.geometry,
                [True, False, False],
            )
            of_inputs = of_inputs.to(inputs.dtype)
        if ctx.needs_input_grad[1] and _is_large(weight):
            of_weight = _of_weight(gradients, inputs, weight, *ctx.geometry)
        elif ctx.needs_input_grad[1]:
            _, of_weight = _by_torch(
                gradients, inputs, weight, ctx.geometry, [False, True, False]
            )
        if ctx.needs_input_grad[2]:
            of_bias = gradients.sum((0, 2, 3))
        return of_inputs, of_weight, of_bias, None, None, None


def _by_torch(gradients, inputs, weight, geometry, mask):
    """Return torch's gradients of inputs and weight, as far as the mask wants them."""
    found = torch.ops.aten.convolution_backward(
        gradients, inputs, weight, None, *geometry, False, [0, 0], len(weight), mask
    )
    return found[:2]


def _of_weight(gradients, inputs, weight, stride, padding, dilation):
    n_images, n_channels = inputs.shape[:2]
    extents = [
        step * (n - 1) + 1 for step, n in zip(stride, gradients.shape[2:], strict=True)
    ]
    # oneDNN is slow if the padding is as large as the kernel, here the gradients.
    if any(pad >= extent for pad, extent in zip(padding, extents, strict=True)):
        vertical, horizontal = padding
        inputs = functional.pad(inputs, (horizontal, horizontal, vertical, vertical))
        padding = (0, 0)
    found = functional.conv2d(
        inputs.reshape(1, -1, *inputs.shape[2:]),
        gradients.reshape(-1, 1, *gradients.shape[2:]),
        None,
        dilation,
        padding,
        stride,
        n_images * n_channels,
    )
    height, width = weight.shape[2:]
    found = found[..., :height, :width].reshape(n_images, *weight.shape)
    return found.sum(0, dtype=torch.float32).to(weight.dtype)
