"""Choice of device, precision, and what counts as running out of memory."""

import pytest
import torch

from skdeepfeat._device import (
    compute_context,
    free_device_memory,
    is_out_of_memory,
    resolve_device,
)


def test_auto_takes_an_accelerator_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else None
    resolved = resolve_device("auto").type
    assert resolved == (expected or resolved)
    if not any(getattr(torch, name).is_available() for name in ("cuda", "mps", "xpu")):
        assert resolved == "cpu"


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_named_device(device):
    assert resolve_device(device) == torch.device("cpu")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", "", 3.5])
def test_device_that_is_not_there_is_an_error_with_the_way_out(device):
    with pytest.raises(ValueError, match=r"'device' parameter.*Usable here: cpu"):
        resolve_device(device)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_precision_is_that_of_the_products(precision):
    a = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    with compute_context(torch.device("cpu"), precision):
        product = a @ a
        assert product.is_inference()
    assert product.dtype == getattr(torch, precision)


def test_out_of_memory_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)  # the CPU allocator's own error
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_freeing_the_cpu_is_harmless():
    free_device_memory(torch.device("cpu"))
    assert resolve_device("cpu").type == "cpu"
