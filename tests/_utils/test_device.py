"""Choice of device, precision, and what counts as running out of memory."""

import threading

import pytest
import torch

from benchmarks._forks import run_python
from skdeepfeat._utils._device import (
    SharedSetting,
    compute_context,
    free_device_memory,
    is_out_of_memory,
    resolve_device,
    resolve_devices,
    try_on_device,
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


class TestArithmetic:
    """float32 is float32, by whichever interface of torch the user chose another."""

    # torch allows only one of its two interfaces in a process: hence processes, which
    # are forked, as importing torch takes seconds.
    SCRIPT = """
import os, sys
import torch
from skdeepfeat._utils._device import compute_context

of_cpu = torch.backends.mkldnn
CASES = [
    ("cuda", "tf32", (torch.backends.cuda.matmul, torch.backends.cudnn.conv)),
    ("cpu", "ieee", (of_cpu.matmul, of_cpu.conv, of_cpu.rnn)),
]
matrix = torch.randn(256, 256, generator=torch.Generator().manual_seed(0))
product = matrix @ matrix

def check(chosen):
    exec(chosen)
    for device, with_tf32, places in CASES:
        before = [place.fp32_precision for place in places]
        turns = [("float32", "ieee"), ("tf32", with_tf32), ("float32", "ieee")]
        for precision, wanted in turns:
            with compute_context(torch.device(device), precision):
                found = {place.fp32_precision for place in places}
                assert found == {wanted}, found
                if device == "cpu":  # some processors could use bfloat16
                    assert torch.allclose(matrix @ matrix, product, atol=1e-4)
            assert [place.fp32_precision for place in places] == before
    exec(chosen)

for chosen in sys.argv[1:]:
    if os.fork() == 0:
        check(chosen)
        sys.exit()
    _, status = os.wait()
    assert status == 0, chosen
"""

    @pytest.mark.slow
    def test_the_setting_holds_for_a_while(self):
        chosen = [
            "pass",
            "torch.backends.fp32_precision = 'tf32'",
            "torch.backends.cudnn.fp32_precision = 'tf32'",
            "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
            "torch.backends.cuda.matmul.allow_tf32 = True",
            "torch.backends.cudnn.allow_tf32 = False",
            "torch.set_float32_matmul_precision('high')",
            "torch.set_float32_matmul_precision('medium')",
            "torch.backends.fp32_precision = 'bf16'",
            "torch.backends.mkldnn.conv.fp32_precision = 'bf16'",
        ]
        run = run_python(["-c", self.SCRIPT, *chosen])
        assert run.returncode == 0, run.stderr


class TestSharedSetting:
    """A switch of the whole process, in the hands of several threads."""

    @pytest.fixture
    def state(self):
        return {"value": "before", "writes": []}

    @pytest.fixture
    def setting(self, state):
        def write(value):
            state["value"] = value
            state["writes"].append(value)

        return SharedSetting(lambda: state["value"], write)

    def test_it_is_put_back_also_after_an_error(self, setting, state):
        with pytest.raises(KeyError), setting.set_to("one"):
            assert state["value"] == "one"
            raise KeyError
        assert state["value"] == "before"

    def test_the_last_one_puts_it_back(self, setting, state):
        first, second = setting.set_to("one"), setting.set_to("one")
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert state["value"] == "one"
        second.__exit__(None, None, None)
        assert state["writes"] == ["one", "before"]

    def test_who_wants_another_value_waits(self, setting, state):
        entered = threading.Event()

        def other():
            with setting.set_to("two"):
                assert state["value"] == "two"
                entered.set()

        with setting.set_to("one"):
            thread = threading.Thread(target=other)
            thread.start()
            assert not entered.wait(0.2)
            assert state["value"] == "one"
        thread.join()
        assert entered.is_set() and state["value"] == "before"

    def test_many_threads_each_see_their_value(self, setting, state):
        wrong = []

        def work(value):
            for _ in range(200):
                with setting.set_to(value):
                    if state["value"] != value:
                        wrong.append(value)

        threads = [threading.Thread(target=work, args=[i % 3]) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and state["value"] == "before"


@pytest.mark.parametrize(("started", "expected"), [(False, "cuda:0"), (True, "cuda:1")])
def test_a_gpu_has_one_name(started, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    for name in ("cuda", "auto", expected):
        assert str(resolve_device(name)) == expected
    with pytest.raises(ValueError, match="a list of different ones"):
        resolve_devices(["cuda", expected])


def test_several_devices():
    assert resolve_devices("cpu") == [torch.device("cpu")]
    assert resolve_devices(["cpu", "cpu:0"]) == [
        torch.device("cpu"),
        torch.device("cpu:0"),
    ]
    for wrong in ([], (), ["cpu", "cpu"]):
        with pytest.raises(ValueError, match="at least one. Got"):
            resolve_devices(wrong)


def test_a_call_is_tried_on_a_device():
    def call(error):
        raise error

    assert try_on_device(torch.device("cpu"), lambda: [1]) == ([1], None)
    out_of_memory = torch.OutOfMemoryError("out of memory\nand more")
    found, cause = try_on_device(torch.device("cpu"), lambda: call(out_of_memory))
    assert (found, cause) == (None, "out of memory")
    with pytest.raises(ValueError, match="another"):
        try_on_device(torch.device("cpu"), lambda: call(ValueError("another")))
