"""torch.compile against torch as it is: the same numbers, whatever the batch."""

import numpy as np
import pytest
import torch
from networks import NormNet

from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.running import _compiled_networks
from skdeepfeat.networks.running._compile_runtime import CompiledNetwork

# Each compiles a network, which takes a C++ compiler seconds.
pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_compiled():
    _compiled_networks._compiled.clear()
    torch.compiler.reset()
    # Scalar code, which a C++ compiler has ready in half the time, of one process.
    with torch._inductor.config.patch({"cpp.vec_isa_ok": False, "compile_threads": 1}):
        yield
    _compiled_networks._compiled.clear()
    torch.compiler.reset()


@pytest.fixture
def n_compiled(monkeypatch):
    """Returns how often torch's compiler has been called."""
    from torch._dynamo.utils import counters

    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


def three_convolutions():
    """Small enough that compiling it takes little."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 8, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )


class Stubborn(NormNet):
    """Looks at numbers, which no exporter can follow."""

    def forward(self, images):
        rows = super().forward(images)
        return rows * 2 if rows.sum() > 0 else rows


def rows_of(neck, pixels, runtime, precision="float32"):
    with neck.loaded(CPU, precision, runtime) as run:
        return run(pixels)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("own", {"image_size": 32, "layer": [None, "1", "output"]}),
        # The first stages, as the others have the same kinds of layers.
        (
            "timm/test_efficientnet",
            {"weights": "random", "image_size": 64, "layer": [0, 1]},
        ),
        (
            "test_vit",
            {"weights": "random", "image_size": 64, "layer": [0], "pooling": "cls"},
        ),
    ],
)
def test_the_rows_are_those_of_torch(model, parameters, batch, n_compiled):
    if model == "own":
        model = torch.nn.Sequential(*three_convolutions(), torch.nn.Linear(16, 4))
    neck = resolve_neck(model, **parameters)
    pixels = batch(7, *neck.preprocessing.crop)
    wanted = rows_of(neck, pixels, "torch")
    with neck.loaded(CPU, "float32", "compile") as run:
        assert isinstance(run._network, CompiledNetwork)
        for n in (7, 1, 4, 2, 0):
            for rows, expected in zip(run(pixels[:n]), wanted, strict=True):
                assert rows.dtype == np.float32
                assert rows.shape == (n, expected.shape[1])
                if n:
                    error = np.abs(rows - expected[:n]).max()
                    assert error < 1e-4 * np.abs(expected).max()
        assert n_compiled() == 1  # for all sizes of batches


@pytest.mark.parametrize(("layer", "n_convolutions"), [("1", 1), (None, 3)])
def test_what_lies_behind_the_last_layer_does_not_run(layer, n_convolutions, batch):
    neck = resolve_neck(three_convolutions(), image_size=32, layer=layer)
    with (
        neck.loaded(CPU, "float32", "compile") as run,
        torch.profiler.profile() as profile,
    ):
        run(batch(4, 32))
    calls = [event.name for event in profile.events()]
    assert calls.count("aten::convolution") == n_convolutions


def test_bfloat16_is_near(batch):
    neck = resolve_neck(three_convolutions(), image_size=64)
    [exact] = rows_of(neck, batch(4, 64), "torch")
    [rough] = rows_of(neck, batch(4, 64), "compile", "bfloat16")
    error = np.abs(rough - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 5e-2


def test_what_it_cannot_run_is_said_with_the_way_out(batch):
    neck = resolve_neck(Stubborn(), layer="output", image_size=32)
    with pytest.raises(ValueError, match="torch.compile cannot run .*runtime='torch'"):
        rows_of(neck, batch(3, 32), "compile")


def test_threads_share_it(batch):
    from concurrent.futures import ThreadPoolExecutor

    neck = resolve_neck(three_convolutions(), image_size=32)
    [wanted] = rows_of(neck, batch(6, 32), "torch")

    def compute(i):
        with neck.loaded(CPU, "float32", "compile") as run:
            return run(batch(6, 32)[i : i + 3])[0]

    with ThreadPoolExecutor(3) as pool:
        for i, rows in enumerate(pool.map(compute, range(4))):
            np.testing.assert_allclose(
                rows, wanted[i : i + 3], rtol=1e-4, atol=1e-5 * np.abs(wanted).max()
            )
