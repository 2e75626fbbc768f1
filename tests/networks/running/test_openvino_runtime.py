"""OpenVINO against torch: the same numbers, faster, and nothing sent anywhere."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from networks import NormNet

from benchmarks._forks import run_python
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.running import (
    _compiled_networks,
    _loaded_networks,
    _openvino_runtime,
    _runtimes,
)
from skdeepfeat.networks.running._openvino_runtime import OpenVINONetwork

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_compiled():
    _compiled_networks._compiled.clear()
    yield
    _compiled_networks._compiled.clear()


def rows_of(neck, pixels, runtime, precision="float32", n_images=None):
    with neck.loaded(CPU, precision, runtime, n_images) as run:
        return run(pixels)


def is_compiled(run):
    return isinstance(run._network, OpenVINONetwork)


class Fickle(NormNet):
    """Goes another way for another batch, which a trace cannot know."""

    def forward(self, images):
        return super().forward(images) * len(images)


class Unknown(NormNet):
    """Does something that OpenVINO has no operation for."""

    def forward(self, images):
        maps = torch.special.i1e(self.stem(images))
        return self.head(maps.mean((2, 3)))


NETWORKS = {
    "efficientnet_lite0": {"image_size": 64, "layer": [None, 1, "output"]},
    "resnet18": {"weights": "random", "image_size": 64, "layer": ["layer1", None]},
    "test_vit": {"weights": "random", "layer": [None, -1], "pooling": "cls"},
    "timm/test_convnext": {
        "weights": "random",
        "image_size": 64,
        "layer": -1,
        "pooling": "max",
    },
    "torchvision/mobilenet_v3_small": {
        "weights": "random",
        "image_size": (48, 80),
        "layer": [2],
        "pooling": "flatten",
    },
}


@pytest.mark.parametrize(
    "model",
    [
        "efficientnet_lite0",
        "test_vit",
        pytest.param("resnet18", marks=pytest.mark.slow),
        pytest.param("timm/test_convnext", marks=pytest.mark.slow),
        pytest.param("torchvision/mobilenet_v3_small", marks=pytest.mark.slow),
    ],
)
def test_the_rows_are_those_of_torch(model, batch):
    neck = resolve_neck(model, **NETWORKS[model])
    pixels = batch(5, *neck.preprocessing.crop)
    wanted = rows_of(neck, pixels, "torch")
    with neck.loaded(CPU, "float32", "openvino") as run:
        assert is_compiled(run)
        for n in (5, 1, 3):
            for rows, expected in zip(run(pixels[:n]), wanted, strict=True):
                assert rows.dtype == np.float32
                error = np.abs(rows - expected[:n]).max()
                assert error < 1e-4 * np.abs(expected).max()
        for rows, expected in zip(run(pixels[:0]), wanted, strict=True):
            assert rows.shape == (0, expected.shape[1])


def test_a_network_of_ones_own(batch):
    neck = resolve_neck(NormNet(), layer=[None, "norm"], image_size=32)
    pixels = batch(4, 32)
    found = rows_of(neck, pixels, "openvino")
    for rows, expected in zip(found, rows_of(neck, pixels, "torch"), strict=True):
        np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_on_request_and_near(batch):
    neck = resolve_neck("resnet18", weights="random", image_size=64)
    pixels = batch(4, 64)
    [exact] = rows_of(neck, pixels, "openvino")
    [rough] = rows_of(neck, pixels, "openvino", "bfloat16")
    error = np.abs(rough - exact).max() / np.abs(exact).max()
    assert error < 5e-2
    if torch.cpu._is_avx512_bf16_supported():
        assert error > 1e-5


@pytest.mark.parametrize(
    ("n_images", "expected"),
    [(1, "openvino"), (None, "openvino"), (0, "torch")],
)
def test_auto_measures_where_there_are_images(n_images, expected):
    """`test_measured_network.py` has how much has to be computed."""
    chosen = _runtimes.choose_runtime("auto", CPU, "float32", (224, 224), n_images)
    assert chosen == expected


def test_auto_is_torch_where_openvino_is_no_option(monkeypatch):
    def choose(runtime="auto", device="cpu", precision="float32"):
        device = torch.device(device)
        return _runtimes.choose_runtime(runtime, device, precision, (224, 224), None)

    assert choose() == "openvino"
    assert choose(precision="bfloat16") == "openvino"
    assert choose(device="cuda") == "torch"
    assert choose(precision="float16") == "torch"
    assert choose("torch") == "torch"
    with pytest.raises(ValueError, match="on the CPU only. Got it with device 'cuda"):
        choose("openvino", device="cuda")
    with pytest.raises(ValueError, match="or 'bfloat16'. Got it with 'float16'"):
        choose("openvino", precision="float16")
    monkeypatch.setattr(_openvino_runtime, "is_installed", lambda: False)
    assert choose() == "torch"
    with pytest.raises(ImportError, match=r"pip install 'skdeepfeat\[openvino\]'"):
        choose("openvino")


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Fickle, "its rows differ from one pass"),
        (Unknown, "No conversion rule found for operations: aten::special_i1e"),
    ],
)
def test_what_it_cannot_run_runs_in_torch(network, reason, batch, caplog):
    neck = resolve_neck(network(), layer="output", image_size=32)
    pixels = batch(3, 32)
    with caplog.at_level(logging.INFO, "skdeepfeat"):
        [found] = rows_of(neck, pixels, "auto")
    [wanted] = rows_of(neck, pixels, "torch")
    np.testing.assert_array_equal(found, wanted)
    assert "runs in torch, not in OpenVINO" in caplog.text
    assert reason in caplog.text
    with pytest.raises(ValueError, match="OpenVINO cannot run .*runtime='torch'"):
        rows_of(neck, pixels, "openvino")


def test_a_failure_is_remembered(batch, monkeypatch):
    calls = []

    def fail(*args):
        calls.append(args)
        raise RuntimeError("no such operation")

    monkeypatch.setattr(_openvino_runtime, "compile_network", fail)
    neck = resolve_neck("resnet18", weights="random", image_size=32)
    for _ in range(3):
        rows_of(neck, batch(1, 32), "auto")
    assert len(calls) == 1


def test_converted_once_and_without_weights_the_second_time(batch, caplog):
    neck = resolve_neck("resnet18", weights="random", image_size=32)
    pixels = batch(2, 32)
    first = rows_of(neck, pixels, "openvino")
    _loaded_networks._entries.clear()
    with caplog.at_level(logging.INFO, "skdeepfeat"):
        again = resolve_neck("resnet18", weights="random", image_size=32)
        second = rows_of(again, pixels, "openvino")
    np.testing.assert_array_equal(first[0], second[0])
    assert "loading" not in caplog.text


def test_a_network_of_ones_own_is_converted_again_only_after_a_change(
    batch, monkeypatch
):
    calls = []
    original = _openvino_runtime.compile_network

    def noted(*args):
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(_openvino_runtime, "compile_network", noted)
    network, pixels = NormNet(), batch(2, 32)

    def rows():
        # As each batch of a FeatureMapper does it, or each shard of a worker.
        return rows_of(resolve_neck(network, image_size=32), pixels, "openvino")[0]

    one, same = rows(), rows()
    np.testing.assert_array_equal(one, same)
    assert len(calls) == 1
    network.stem.weight.data.add_(1)  # which torch's own counter of changes misses
    other = rows()
    assert len(calls) == 2
    [expected] = rows_of(resolve_neck(network, image_size=32), pixels, "torch")
    np.testing.assert_allclose(other, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(other, one)


@pytest.mark.slow
def test_weights_and_layers_are_told_apart(batch):
    pixels = batch(2, 32)

    def rows(layer=None, seed=0):
        neck = resolve_neck(
            "resnet18", weights="random", random_state=seed, layer=layer, image_size=32
        )
        return rows_of(neck, pixels, "openvino")[0]

    one = rows()
    assert not np.allclose(one, rows(seed=1))
    assert rows(layer="layer1").shape == (2, 64)
    np.testing.assert_array_equal(rows(), one)
    assert len(_compiled_networks._compiled) == 2


@pytest.mark.slow
def test_it_uses_as_many_threads_as_torch(batch):
    neck = resolve_neck("resnet18", weights="random", image_size=32)
    before = torch.get_num_threads()
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            rows_of(neck, batch(1, 32), "openvino")
            [*_, (make, _)] = _compiled_networks._compiled.values()
            [compiled] = make.args
            assert compiled.get_property("INFERENCE_NUM_THREADS") == n
    finally:
        torch.set_num_threads(before)


WATCHED = """
import sys

events = []
WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname",
           "socket.sendto", "subprocess.Popen", "os.system", "os.posix_spawn")

def watch(event, args):
    if event in WATCHED:
        events.append((event, args))

sys.addaudithook(watch)
import logging, pathlib, socket
import numpy as np, torch
from skdeepfeat.networks import resolve_neck
before = len(events)

neck = resolve_neck("resnet18", weights="random", image_size=32)
with neck.loaded(torch.device("cpu"), "float32", "openvino") as run:
    run(np.zeros((2, 32, 32, 3), np.uint8))
assert "openvino" in sys.modules
reporters = [name for name in sys.modules if name.startswith("openvino_telemetry")]
# The hook sees what it is to see: this is what a report would do first.
seen = len(events)
try:
    socket.create_connection(("127.0.0.1", 9), timeout=0.1)
except OSError:
    pass
assert len(events) > seen
print(events[before:seen], reporters, list(pathlib.Path.home().iterdir()))
"""


@pytest.mark.slow
def test_nothing_is_reported_to_anybody(tmp_path):
    """OpenVINO comes with usage telemetry: it is never even set up."""
    environment = {"HOME": str(tmp_path), "PATH": ""}
    result = run_python(["-c", WATCHED], env=environment, timeout=240)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[] [] []"


FORKS = """
import os, subprocess, sys
import numpy as np
from skdeepfeat.networks import resolve_neck

def run(runtime):
    neck = resolve_neck("resnet18", weights="random", image_size=32)
    with neck.loaded("cpu", runtime=runtime) as compute:
        return compute(np.zeros((2, 32, 32, 3), np.uint8))[0].shape

run("openvino")
subprocess.run(["true"], preexec_fn=lambda: None, check=True)
child = os.fork()
if not child:
    # OpenMP, and so torch, cannot compute here: that is as it was.
    sys.exit(7)  # through all that an interpreter destroys at its end
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert run("openvino") == (2, 512)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on POSIX")
def test_a_process_that_has_used_it_can_be_forked():
    """As Ray does when it starts, and multiprocessing by default on Linux."""
    run = subprocess.run(
        [sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
