"""Rows of features, computed on one device or on several."""

import numpy as np
import pytest
import torch
from networks import CountingNet, rows_counted

from skdeepfeat import (
    BadImageError,
    PretrainedFeatureExtractor,
)
from skdeepfeat.feature_extraction import ExtractionSettings
from skdeepfeat.feature_extraction._compute import compute_features
from skdeepfeat.images import make_image_source
from skdeepfeat.networks import resolve_neck
from skdeepfeat.networks.running import _compiled_networks, _measured_network
from skdeepfeat.networks.running._compiled_networks import CompiledForm

CPU = torch.device("cpu")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (37, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "rows.log"


@pytest.fixture
def neck(log):
    return resolve_neck(CountingNet(log), image_size=16)


def collect(neck, source, indices, devices, **settings):
    rows, blocks, bad = [], [], {}
    settings = ExtractionSettings(**settings)
    for done, outputs, failed in compute_features(
        source, indices, neck, devices, settings
    ):
        rows += done
        if done:
            blocks.append(outputs[0])
        bad |= failed
    return rows, np.concatenate(blocks), bad


@pytest.mark.parametrize("batch_size", [1, 5, 37, 100])
# Both are the same processor, but two to us: each has a network and a thread.
@pytest.mark.parametrize("devices", [[CPU], [CPU, torch.device("cpu:0")]], ids=len)
def test_each_image_once_on_some_device(devices, batch_size, neck, images, log):
    neck.outputs  # noqa: B018 - examined before the rows are counted
    log.unlink(missing_ok=True)
    source = make_image_source(images)
    indices = np.arange(36, -1, -3)
    rows, found, bad = collect(neck, source, indices, devices, batch_size=batch_size)
    assert sorted(rows) == sorted(indices) and not bad
    assert rows_counted(log) == len(indices)
    pixels = np.stack([source.fitted(row, neck.preprocessing) for row in rows])
    with neck.loaded(CPU) as run:
        [expected] = run(pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_an_estimator_takes_several_devices(images):
    def features(device):
        return PretrainedFeatureExtractor(
            image_size=32, batch_size=4, cache=None, device=device
        ).transform(images)

    np.testing.assert_allclose(
        features(["cpu", "cpu:0"]), features("cpu"), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ([], "at least one. Got \\[\\]"),
        (["cpu", torch.device("cpu")], "a list of different ones"),
        (["cpu", "cuda:99"], "'cuda:99', which torch does not find"),
        (["cpu", "gpu"], "Got 'gpu' instead"),
    ],
)
def test_wrong_devices(device, message, images):
    extractor = PretrainedFeatureExtractor(image_size=32, cache=None, device=device)
    with pytest.raises(ValueError, match=message):
        extractor.transform(images)


def test_what_was_on_its_way_behind_a_broken_image_is_kept(neck, images):
    X = [*images[:10], b"broken", *images[10:]]
    source, indices = make_image_source(X), np.arange(len(X))
    rows, found, bad = collect(neck, source, indices, [CPU], batch_size=4)
    assert set(bad) == {10} and isinstance(bad[10], BadImageError)
    # The batch with the broken image is the last that is begun, and it is computed.
    assert rows == [*range(10), 11, 12]
    rows, found, bad = collect(
        neck, source, indices, [CPU], batch_size=4, on_error="nan"
    )
    assert len(rows) == 37 and set(bad) == {10}


def test_tf32_is_float32_on_a_cpu(images):
    def features(precision):
        extractor = PretrainedFeatureExtractor(
            image_size=32, cache=None, precision=precision, device="cpu"
        )
        return extractor.transform(images[:4])

    np.testing.assert_array_equal(features("tf32"), features("float32"))


class TestRuntime:
    """What runs the network changes no row beyond 1e-4, and no cache's name for it."""

    def extractor(self, **parameters):
        return PretrainedFeatureExtractor(image_size=32, device="cpu", **parameters)

    def test_rows_of_one_runtime_serve_the_other(self, images, tmp_path, caplog):
        X = images[:6]
        compiled = self.extractor(runtime="openvino", cache=tmp_path).transform(X)
        with caplog.at_level("INFO", "skdeepfeat"):
            known = self.extractor(runtime="torch", cache=tmp_path).transform(X)
        np.testing.assert_array_equal(known, compiled)
        assert "computing the features of" not in caplog.text
        fresh = self.extractor(runtime="torch", cache=None).transform(X)
        assert np.abs(fresh - compiled).max() < 1e-4 * np.abs(fresh).max()

    def test_few_images_stay_in_torch(self, images, monkeypatch):
        def never(*args):
            raise AssertionError("converted for a handful of images")

        _compiled_networks._compiled.clear()  # what is compiled already costs nothing
        monkeypatch.setattr(CompiledForm, "load", never)
        assert self.extractor(cache=None).transform(images).shape == (37, 1280)

    @pytest.mark.slow
    def test_many_images_do_not(self, images, monkeypatch):
        for name in ("_SECONDS", "_SECONDS_PER_MODULE", "_N_PASSES"):
            monkeypatch.setattr(_measured_network, name, 0)
        converted, load = [], CompiledForm.load

        def compile_and_note(form):
            converted.append(form)
            return load(form)

        monkeypatch.setattr(CompiledForm, "load", compile_and_note)
        # Of 112 x 112 pixels, 32 are tried in torch.
        extractor = self.extractor(cache=None).set_params(image_size=112)
        _compiled_networks._compiled.clear()
        extractor.transform(images[:32])
        assert not converted
        extractor.transform(images[:33])
        assert len(converted) == 1

    def test_wrong_values(self, images):
        with pytest.raises(ValueError, match="'runtime' parameter"):
            self.extractor(runtime="tensorrt").transform(images)
        with pytest.raises(ValueError, match="Got it with 'float16'"):
            self.extractor(
                runtime="openvino", precision="float16", cache=None
            ).transform(images)
