"""Below float32, an image has one row: what computes it belongs to the key."""

import numpy as np
import pytest
import torch
from networks import NormNet
from torch import nn

from skdeepfeat import FeatureMapper, PretrainedFeatureExtractor
from skdeepfeat.cache import FeatureCache
from skdeepfeat.feature_extraction import ExtractionSettings
from skdeepfeat.feature_extraction._settings import (
    check_device_type,
    settle_arithmetic,
)
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.running import _openvino_runtime, _runtimes

CPU = torch.device("cpu")
BELOW = ["tf32", "bfloat16", "float16"]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)


def extractor(cache, model="efficientnet_lite0", **parameters):
    parameters = {"image_size": 32, "precision": "bfloat16", **parameters}
    return PretrainedFeatureExtractor(model, cache=cache, device="cpu", **parameters)


def labels(cache):
    return sorted(one.label for one in cache.info().namespaces)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["auto", "torch"])
def test_the_number_of_images_does_not_count(runtime, images, tmp_path):
    rows = {}
    for n_images in (1, 100, 300):
        cache = FeatureCache(tmp_path / str(n_images))
        one = extractor(cache, runtime=runtime)
        rows[n_images] = one.transform(images[:n_images])
        [namespace] = cache.info().namespaces
        rows[n_images, "key"] = namespace.key
    assert len({rows[n, "key"] for n in (1, 100, 300)}) == 1
    for n_images in (100, 300):
        difference = np.linalg.norm(rows[n_images][:1] - rows[1])
        assert difference <= 5e-3 * np.linalg.norm(rows[1])


def test_runtimes_have_rows_of_their_own(images, tmp_path):
    cache = FeatureCache(tmp_path)
    for runtime in ("auto", "torch", "auto"):
        extractor(cache, runtime=runtime).transform(images[:2])
    parameters = {"image_size": 32, "precision": "bfloat16", "device": "cpu"}
    mapped = PretrainedFeatureExtractor(**parameters, cache=cache)
    FeatureMapper(mapped)({"image": images[:2]})
    best = "openvino" if _can_openvino() else "torch"
    names = {f"efficientnet_lite0_neck, bfloat16 by {one} on cpu" for one in
             ("torch", best)}  # fmt: skip
    assert labels(cache) == sorted(names)


def _can_openvino():
    return _openvino_runtime.is_installed() and _openvino_runtime.computes_bfloat16()


def test_a_network_that_openvino_cannot_run_is_torchs(images, tmp_path):
    pytest.importorskip("openvino")

    class Odd(NormNet):
        def forward(self, x):
            return super().forward(x) + torch.linalg.matrix_exp(torch.zeros(2, 2)).sum()

    cache = FeatureCache(tmp_path)
    one = extractor(cache, Odd())
    for n_images in (1, 5, 300):
        one.transform(images[:n_images])
    [namespace] = cache.info().namespaces
    assert namespace.label.endswith("by torch on cpu")
    assert namespace.n_rows == 300


def test_float32_has_one_name_whatever_computes_it(images, tmp_path):
    cache = FeatureCache(tmp_path)
    one = extractor(cache, precision="float32")
    one.transform(images[:1])
    one.transform(images)
    [namespace] = cache.info().namespaces
    assert "computed by" not in namespace.description
    assert namespace.n_rows == 300


def test_a_network_whose_weights_are_below_float32(images, tmp_path):
    cache = FeatureCache(tmp_path)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(3600, 2))
    one = extractor(cache, network.to(torch.bfloat16), precision="float32")
    one.transform(images[:2])
    one.transform(images)
    [namespace] = cache.info().namespaces
    assert namespace.description["computed by"] == {"runtime": "torch", "device": "cpu"}


@pytest.mark.parametrize("precision", BELOW)
def test_the_rule_does_not_look_at_the_number(precision):
    chosen = {
        _runtimes.choose_runtime("auto", CPU, precision, (224, 224), n)
        for n in (0, 1, 10_000, None)
    }
    assert len(chosen) == 1
    cuda = torch.device("cuda")
    assert {
        _runtimes.is_worth_folding(cuda, precision, (224, 224), n) for n in (0, 1, None)
    } == {True}


def test_a_processor_without_bfloat16(monkeypatch, images):
    monkeypatch.setattr(_openvino_runtime, "is_installed", lambda: True)
    monkeypatch.setattr(_openvino_runtime, "computes_bfloat16", lambda: False)
    choose = _runtimes.choose_runtime
    assert choose("auto", CPU, "bfloat16", (224, 224), None) == "torch"
    with pytest.raises(ValueError, match="'runtime' .*processors that compute in bf"):
        choose("openvino", CPU, "bfloat16", (224, 224), None)


def settle(**settings):
    settings = ExtractionSettings(**{"precision": "bfloat16", **settings})
    return settle_arithmetic(resolve_neck(image_size=32), [], settings)


def test_workers_compute_as_named_or_fail():
    settled = settle(device="cuda", n_jobs=2)
    assert (settled.runtime, settled.device_type) == ("torch", "cuda")
    check_device_type([torch.device("cuda:1")], settled)
    with pytest.raises(ValueError, match="'device' .*'cpu' was found here"):
        check_device_type([CPU], settled)
    with pytest.raises(ValueError, match="'device' .*of one type"):
        settle(device=["cuda:0", "cpu"])
    assert settle(device="cpu", runtime="torch").runtime == "torch"
    assert settle(device="cuda", precision="float32").device_type is None
