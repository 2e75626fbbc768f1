"""Times per image, in each runtime that is installed."""

import pytest
import torch
from torch import nn

from skdeepfeat.compression import _timing
from skdeepfeat.networks import resolve_neck


class Stubborn(nn.Module):
    """Its code depends on values, which no exporter knows."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        if x.device.type != "meta" and float(x.sum()) > 1e9:
            raise ValueError
        return self.head(self.conv(x).relu().mean((2, 3)))


def plain():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip


@pytest.mark.slow
def test_onnx_runtime():
    geometry = {"resize": 8, "crop": (8, 8)}
    necks = [
        resolve_neck(network, preprocessing=geometry)
        for network in (plain(), Stubborn())
    ]
    times = _timing.milliseconds_per_image(necks, ["torch", "onnxruntime"])
    assert list(times) == [
        ("torch", 1), ("torch", 32), ("onnxruntime", 1), ("onnxruntime", 32),
    ]  # fmt: skip
    assert all(first > 0 for first, _ in times.values())
    assert times["onnxruntime", 1][1] != times["onnxruntime", 1][1]
    # It computes the same.
    pixels = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)
    [found] = _timing._in_onnx_runtime(necks[0])(pixels.numpy())
    with torch.no_grad():
        wanted = necks[0].trainable().eval()(pixels.permute(0, 3, 1, 2))
    assert found == pytest.approx(wanted.numpy(), abs=1e-5)


def test_which_runtimes(monkeypatch):
    checked = _timing.checked_runtimes
    assert checked("installed")[0] == "torch"
    assert checked(("onnxruntime", "torch")) == ["torch", "onnxruntime"]
    missing = {**_timing.RUNTIMES, "openvino": (("no_such_package",), "int8")}
    monkeypatch.setattr(_timing, "RUNTIMES", missing)
    assert "openvino" not in checked("installed")
    with pytest.raises(ImportError, match=r"'openvino'.*skdeepfeat\[int8\]"):
        checked(["torch", "openvino"])
    with pytest.raises(ValueError, match="Got 'onnxruntim' instead. Did you mean"):
        checked(["torch", "onnxruntim"])
    for bad in ("torch", [], None, 3, [3]):
        with pytest.raises(ValueError, match=r"The 'runtimes' parameter.* instead\.$"):
            checked(bad)
