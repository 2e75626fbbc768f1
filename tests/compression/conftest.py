"""What the tests of compression share."""

import pytest

from skdeepfeat.compression import _timing


@pytest.fixture(autouse=True, scope="session")
def no_onnx_runtime():
    """Leave out ONNX Runtime, as each export takes seconds; `test_timing.py` has it."""
    with pytest.MonkeyPatch.context() as patch:
        runtimes = {k: v for k, v in _timing.RUNTIMES.items() if k != "onnxruntime"}
        patch.setattr(_timing, "RUNTIMES", runtimes)
        yield
