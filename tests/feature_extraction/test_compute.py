"""Rows of features, computed on one device or on several."""

import numpy as np
import pytest
import torch
from networks import CountingNet, rows_counted
from PIL import Image

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FeatureCache,
    PretrainedFeatureExtractor,
)
from skdeepfeat.feature_extraction import ExtractionSettings
from skdeepfeat.feature_extraction._compute import compute_features
from skdeepfeat.images import _on_device, make_image_source
from skdeepfeat.networks import _neck, resolve_neck
from skdeepfeat.networks.running import _compiled_networks, _measured_network

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


# What is recorded is raised again, torchvision's own word on its decoders as well.
@pytest.mark.filterwarnings("ignore:The image decoding and encoding")
class TestJPEGDecoder:
    """JPEGs that a device decodes; here the CPU is allowed to, as if it were one."""

    @pytest.fixture(autouse=True)
    def allowed(self, monkeypatch):
        monkeypatch.setattr(_on_device, "_DECODING_DEVICES", ("cpu",))

    @pytest.fixture
    def files(self, images, tmp_path):
        paths = []
        for i, pixels in enumerate(images):
            paths.append(str(tmp_path / f"{i:02d}.{'png' if i % 5 == 4 else 'jpg'}"))
            Image.fromarray(pixels).resize((40, 50)).save(paths[-1])
        return paths

    def extractor(self, **parameters):
        return PretrainedFeatureExtractor(
            image_size=32, device="cpu", batch_size=8, **parameters
        )

    def test_rows_are_those_of_pillow_s_pixels_and_kept_apart(
        self, files, tmp_path, caplog
    ):
        cache = FeatureCache(tmp_path / "cache")
        by_device = self.extractor(jpeg_decoder="device", cache=cache)
        rows = by_device.transform(files)
        assert cache.info().n_rows == len(files)
        # On a CPU both decode with libjpeg.
        by_host = self.extractor(cache=cache).transform(files)
        np.testing.assert_array_equal(rows, by_host)
        assert cache.info().n_rows == 2 * len(files)
        with caplog.at_level("INFO", "skdeepfeat"):
            np.testing.assert_array_equal(by_device.transform(files), rows)
        assert "computing the features of" not in caplog.text

    @pytest.fixture
    def undecodable(self, files):
        """Break a file so that only decoding it shows it."""
        with open(files[10], "rb") as file:
            data = file.read()
        at = data.index(b"\xff\xda")
        with open(files[10], "wb") as file:
            file.write(data[:at] + b"\xff\xda\x00\x03\x09" + data[at + 5 :])
        return files

    def test_a_broken_image_is_named_and_the_rest_kept(self, undecodable, tmp_path):
        cache = FeatureCache(tmp_path / "cache")
        extractor = self.extractor(jpeg_decoder="device", cache=cache)
        with pytest.raises(BadImageError) as caught:
            extractor.transform(undecodable)
        assert caught.value.index == 10 and caught.value.origin == undecodable[10]
        # Not the whole: no batch is begun after it has been found.
        assert 15 <= cache.info().n_rows <= 31
        with pytest.warns(BadImageWarning, match="10"):
            rows = extractor.set_params(on_error="nan").transform(undecodable)
        assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [10]
        by_host = self.extractor(cache=None, on_error="nan")
        with pytest.warns(BadImageWarning, match="10"):
            np.testing.assert_array_equal(rows, by_host.transform(undecodable))

    def test_a_device_that_cannot_is_said(self, files, monkeypatch):
        monkeypatch.setattr(_on_device, "_DECODING_DEVICES", ("cuda",))
        extractor = self.extractor(jpeg_decoder="device", cache=None)
        with pytest.raises(ValueError, match="use jpeg_decoder='pillow'"):
            extractor.transform(files)
        with pytest.raises(ValueError, match="'jpeg_decoder' parameter"):
            extractor.set_params(jpeg_decoder="turbo").fit(files)


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
        monkeypatch.setattr(_neck, "compiled_network", never)
        assert self.extractor(cache=None).transform(images).shape == (37, 1280)

    @pytest.mark.slow
    def test_many_images_do_not(self, images, monkeypatch):
        for name in ("_SECONDS", "_SECONDS_PER_MODULE", "_N_PASSES"):
            monkeypatch.setattr(_measured_network, name, 0)
        converted = []

        def compile_and_note(*args):
            converted.append(args)
            return compiled_network(*args)

        from skdeepfeat.networks.running._compiled_networks import compiled_network

        monkeypatch.setattr(_neck, "compiled_network", compile_and_note)
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
