"""What only a CUDA device can show: `make test-gpu` runs it."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import nn
from torch.nn import functional

from skdeepfeat import (
    FineTuneClassifier,
    PretrainedFeatureExtractor,
)
from skdeepfeat.images import _decoding_processes
from skdeepfeat.networks.running._runtimes import _WORTH_FOLDING
from skdeepfeat.networks.running._torch_runtime import EagerNetwork

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def many():
    """Return different images: one that comes again goes through the network once."""
    shape = (_WORTH_FOLDING // 64**2, 64, 64, 3)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def batches(monkeypatch):
    """Return the sizes of the batches that torch runs, as they come."""
    sizes = []
    queue = EagerNetwork.queue

    def noted(network, batch):
        sizes.append(len(batch))
        return queue(network, batch)

    monkeypatch.setattr(EagerNetwork, "queue", noted)
    return sizes


def features(pixels, **parameters):
    return PretrainedFeatureExtractor(cache=None, **parameters).transform(pixels)


def relative_error(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("layer", [None, 2, ["blocks.3", "neck"]])
def test_the_gpu_gives_the_cpu_s_rows(pixels, layer):
    on_cpu = features(pixels, layer=layer, device="cpu")
    on_gpu = features(pixels, layer=layer, device="cuda")
    assert relative_error(on_gpu, on_cpu) < 1e-4
    assert relative_error(features(pixels, layer=layer, batch_size=3), on_gpu) < 1e-5


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_near(pixels, precision):
    exact = features(pixels, device="cuda")
    assert 0 < relative_error(features(pixels, precision=precision), exact) < 0.1


def test_tf32_is_on_request_and_leaves_the_settings_alone(pixels):
    def settings():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    before = settings()
    exact = features(pixels, device="cuda", batch_size=4)
    assert settings() == before
    rounded = features(pixels, device="cuda", precision="tf32", batch_size=4)
    assert settings() == before
    assert relative_error(exact, features(pixels, device="cpu")) < 1e-4
    if torch.cuda.get_device_capability() >= (8, 0):
        assert 1e-5 < relative_error(rounded, exact) < 1e-2


def test_many_batches_through_two_feeders_are_the_same_rows(many, batches):
    rows = features(many, device="cuda", batch_size=8)
    assert batches == [8] * (len(many) // 8)
    expected = features(many, device="cuda", batch_size=len(many))
    assert relative_error(rows, expected) < 1e-5


def test_folded_batch_norms_give_the_same_rows(many, monkeypatch):
    n_norms = []
    batch_norm = functional.batch_norm

    def counting(*args, **kwargs):
        n_norms.append(1)
        return batch_norm(*args, **kwargs)

    options = {"device": "cuda", "layer": ["blocks.2", None], "batch_size": 128}
    monkeypatch.setattr(functional, "batch_norm", counting)
    folded = features(many, **options)
    n_folding = len(n_norms)
    n_norms.clear()
    plain = features(many[:20], **options)
    # Those of the batch on which the norms are found, in each of two feeders, at most.
    assert 0 < n_folding <= 2 * len(n_norms)
    assert relative_error(folded[:20], plain) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.1)]
)
def test_a_compiled_network_gives_the_same_rows(many, precision, tolerance):
    options = {"device": "cuda", "precision": precision, "runtime": "compile"}
    # In two feeders, on a stream each, which share what is compiled.
    compiled = features(many, batch_size=8, **options)
    exact = features(many, device="cuda")
    assert relative_error(compiled, exact) < tolerance
    # For batches of any size, with what was compiled before.
    again = features(many, batch_size=30, **options)
    assert relative_error(again, compiled) < tolerance


def test_processes_decode_for_the_gpu(tmp_path, monkeypatch):
    photo = load_sample_image("china.jpg")
    paths = [str(tmp_path / f"{i:02d}.jpg") for i in range(40)]
    for i, path in enumerate(paths):
        Image.fromarray(photo[3 * i : 3 * i + 300, 2 * i : 2 * i + 400]).save(path)
    expected = features(paths, device="cuda")
    monkeypatch.setattr(_decoding_processes, "_MIN_IMAGES", 1)
    monkeypatch.setattr(_decoding_processes, "_MIN_CORES", 1)
    started = []
    enter = _decoding_processes.DecodingProcesses.__enter__
    monkeypatch.setattr(
        _decoding_processes.DecodingProcesses,
        "__enter__",
        lambda processes: started.append(1) or enter(processes),
    )
    assert relative_error(features(paths, device="cuda"), expected) < 1e-5
    assert started


@pytest.mark.parametrize("parameters", [{}, {"unfreeze": 1, "n_views": 2}])
def test_training_is_near_that_on_the_cpu(pixels, parameters):
    """The GPU cuts the same random parts, and resizes them a little differently."""
    labels = np.arange(len(pixels)) % 2
    losses = []
    for device in ("cpu", "cuda"):
        classifier = FineTuneClassifier(
            image_size=64, max_epochs=3, device=device, cache=None, random_state=0,
            **parameters,
        ).fit(pixels, labels)  # fmt: skip
        losses.append(classifier.history_.query("phase == 'body'")["train_loss"])
    np.testing.assert_allclose(losses[1], losses[0], atol=0.1)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_share_the_batches(pixels):
    both = features(pixels, device=["cuda:0", "cuda:1"], batch_size=4)
    assert relative_error(both, features(pixels, device="cuda:0")) < 1e-5


def test_memory_is_given_back(pixels):
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    features(pixels, device="cuda")
    assert torch.cuda.memory_reserved() <= before
    with pytest.raises(ValueError, match="'layer'"):
        features(pixels, device="cuda", layer="no_such_layer")
    assert torch.cuda.memory_reserved() <= before


def test_out_of_memory_halves_the_batch(pixels, caplog):
    expected = features(pixels, device="cuda", image_size=512)
    free, total = torch.cuda.mem_get_info()
    # Leaves room for the network and an image or two.
    torch.cuda.set_per_process_memory_fraction(400e6 / total)
    try:
        limited = features(pixels, device="cuda", image_size=512, batch_size=20)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "memory" in caplog.text
    assert relative_error(limited, expected) < 1e-5


def test_a_network_on_the_gpu_is_used_and_pickled_for_machines_without_one(
    pixels, tmp_path
):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).cuda()
    extractor = PretrainedFeatureExtractor(network, image_size=32, cache=None)
    expected = extractor.transform(pixels)
    assert next(network.parameters()).is_cuda
    path = tmp_path / "extractor.pickle"
    path.write_bytes(pickle.dumps(copy.deepcopy(extractor)))
    script = (
        "import pickle, sys; "
        "extractor = pickle.load(open(sys.argv[1], 'rb')); "
        "print(next(extractor.model.parameters()).device)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        env={"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin"},
        check=True,
    )
    assert run.stdout.strip() == "cpu"
    on_cpu = pickle.loads(path.read_bytes()).set_params(device="cpu")
    assert relative_error(on_cpu.transform(pixels), expected) < 1e-4
