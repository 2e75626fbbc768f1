"""The gradients of depthwise convolutions against torch's own."""

import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from skdeepfeat.training import _depthwise_gradients, _gradients
from skdeepfeat.training._depthwise_gradients import (
    _DepthwiseGradients,
    fast_depthwise_gradients,
)


@pytest.fixture
def replaced(monkeypatch):
    """The kernel sizes of convolutions whose gradients are computed by us."""
    sizes, of_weight = [], _depthwise_gradients._of_weight

    def counting(gradients, inputs, weight, *geometry):
        sizes.append(tuple(weight.shape[2:]))
        return of_weight(gradients, inputs, weight, *geometry)

    monkeypatch.setattr(_depthwise_gradients, "_of_weight", counting)
    return sizes


def gradients(layer, images, precision, fast):
    layer, images = copy.deepcopy(layer), images.clone().requires_grad_()
    # Also on processors where it is not used.
    context = _DepthwiseGradients() if fast else contextlib.nullcontext()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        with context:
            outputs = layer(images)
    assert outputs.dtype == getattr(torch, precision)
    (outputs.float() * torch.linspace(0, 1, outputs.shape[-1])).sum().backward()
    return [images.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "size, kernel, stride, padding, dilation",
    [
        ((9, 12), 5, 1, 2, 1),
        ((2, 2), 5, 1, 2, 1),  # padding as large as the gradients
        ((12, 9), 5, 2, 2, 1),
        ((11, 11), (7, 3), (1, 2), (3, 1), 1),
        ((13, 15), 5, 3, 0, 2),
        ((3, 3), 7, 1, 3, 1),
        ((14, 14), 7, (2, 3), (4, 3), (1, 2)),
        ((1, 8), (1, 5), 1, (0, 2), 1),
    ],
)
def test_like_torch(size, kernel, stride, padding, dilation, precision, replaced):
    torch.manual_seed(0)
    shape = dict(stride=stride, padding=padding, dilation=dilation, groups=6)
    for bias in (True, False):
        layer = nn.Conv2d(6, 6, kernel, bias=bias, **shape)
        images = torch.randn(3, 6, *size).to(memory_format=torch.channels_last)
        found = gradients(layer, images, precision, fast=True)
        wanted = gradients(layer, images, precision, fast=False)
        assert replaced.pop() == layer.kernel_size
        assert len(found) == 2 + bias
        for one, other in zip(found, wanted, strict=True):
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            error = (one - other).norm() / other.norm()
            assert error < (1e-5 if precision == "float32" else 1e-2)
    assert not replaced


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_strides_of_a_small_kernel(precision, replaced, monkeypatch):
    # torch is slow for the gradient of the inputs, and only in bfloat16.
    by_torch, dtypes = _depthwise_gradients._by_torch, []

    def noting(gradients, *arguments):
        dtypes.append(gradients.dtype)
        return by_torch(gradients, *arguments)

    monkeypatch.setattr(_depthwise_gradients, "_by_torch", noting)
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6)
    images = torch.randn(3, 6, 9, 8)
    found = gradients(layer, images, precision, fast=True)
    wanted = gradients(layer, images, precision, fast=False)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= 1e-2 * other.norm()
    in_bfloat16 = [torch.float32, torch.bfloat16]
    assert dtypes == ([] if precision == "float32" else in_bfloat16)
    assert not replaced


def test_other_convolutions_are_left_alone(replaced):
    images = torch.randn(2, 6, 9, 9)
    layers = {
        "a small kernel": nn.Conv2d(6, 6, 3, groups=6),
        "a dense one": nn.Conv2d(6, 6, 5),
        "groups of two channels": nn.Conv2d(6, 6, 5, groups=3),
        "two outputs for each channel": nn.Conv2d(6, 12, 5, groups=6),
        "padding by name": nn.Conv2d(6, 6, 5, groups=6, padding="same"),
        "float64": nn.Conv2d(6, 6, 5, groups=6).double(),
    }
    with _DepthwiseGradients():
        for layer in layers.values():
            layer(images.to(layer.weight.dtype)).sum().backward()
        frozen = nn.Conv2d(6, 6, 5, groups=6).requires_grad_(False)
        frozen(images.requires_grad_()).sum().backward()
        one_image = nn.Conv2d(6, 6, 5, groups=6)
        one_image(images[0]).sum().backward()
        weight = torch.ones(6, 1, 5, 5, requires_grad=True)
        functional.conv2d(images, weight, groups=6).sum().backward()
        functional.conv2d(images, weight, None, 1, 2, 1, 6).sum().backward()
    assert not replaced
    with _DepthwiseGradients(), torch.no_grad():
        assert not one_image(images).requires_grad


def test_only_on_a_cpu_with_avx512(monkeypatch):
    def is_replaced(device):
        with fast_depthwise_gradients(torch.device(device)) as mode:
            return mode is not None

    assert not is_replaced("cuda:0")
    for capability in ("AVX2", "DEFAULT", "AVX512"):
        monkeypatch.setattr(
            torch.backends.cpu, "get_cpu_capability", lambda found=capability: found
        )
        has_it = capability == "AVX512" and torch.backends.mkldnn.is_available()
        assert is_replaced("cpu") == has_it
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not is_replaced("cpu")


def test_training_uses_them(make_net, make_run, make_pixels, replaced, monkeypatch):
    monkeypatch.setattr(
        _gradients, "fast_depthwise_gradients", lambda device: _DepthwiseGradients()
    )
    net = make_net()
    net.insert(1, nn.Conv2d(3, 3, 5, padding=2, groups=3))
    make_run(net).fit(make_pixels())
    assert set(replaced) == {(5, 5)}
