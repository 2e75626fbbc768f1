"""What the tests of compression share."""

import pytest

from skdeepfeat.compression import _timing


@pytest.fixture(autouse=True)
def no_onnx_runtime(request, monkeypatch):
    """Leave out ONNX Runtime, as each export takes seconds, except where it is tested.

    The fixtures of modules, which run before this one, measure it.
    """
    if "onnx_runtime" not in request.keywords:
        runtimes = {k: v for k, v in _timing.RUNTIMES.items() if k != "onnxruntime"}
        monkeypatch.setattr(_timing, "RUNTIMES", runtimes)
