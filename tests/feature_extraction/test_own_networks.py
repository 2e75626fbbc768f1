"""Rows of users' own networks: never stale, never lost, through every way to them."""

import os
import pathlib
import threading
import warnings

import joblib
import numpy as np
import pytest
import torch
from networks import CountingNet, SmallNet, fix_weights, rows_counted
from sklearn.base import clone
from torch import nn

from benchmarks._forks import run_python
from skdeepfeat import (
    CacheWarning,
    FeatureMapper,
    FineTuneClassifier,
    PretrainedFeatureExtractor,
)
from skdeepfeat.cache import FeatureCache
from skdeepfeat.feature_extraction import _extraction


def scale(x):
    return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.factor = 1.0
        fix_weights(self)

    def forward(self, x):
        return scale(self.conv(x).relu().mean((2, 3))) * self.factor


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


def extractor(network, cache, **parameters):
    return PretrainedFeatureExtractor(
        network, image_size=16, cache=cache, device="cpu", **parameters
    )


def test_a_helper_that_was_redefined(images, tmp_path, monkeypatch):
    cache = FeatureCache(tmp_path)
    one = extractor(Net(), cache)
    before = one.transform(images)
    monkeypatch.setitem(globals(), "scale", lambda x: x * 1.001)
    np.testing.assert_allclose(one.transform(images), before * 1.001, rtol=1e-5)
    assert cache.info().n_rows == 12
    monkeypatch.undo()
    np.testing.assert_array_equal(one.transform(images), before)
    assert cache.info().n_rows == 12


SCRIPT = """
import sys, threading, logging, weakref
import numpy as np
import torch
from skdeepfeat import PretrainedFeatureExtractor
from skdeepfeat.cache import FeatureCache
from networks import CountingNet

def make():
    import torch, numpy

    class Own(CountingNet):
        def forward(self, x):
            return super().forward(x) * float(numpy.pi)

    return Own(sys.argv[1] + "/log")

network = make()
network.lock, network.logger = threading.Lock(), logging.getLogger("own")
network.conv.reference = weakref.ref(network)
network.tags = {"a", "b", "c"}
network.register_forward_hook(lambda module, args, rows: rows + 1)
images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
cache = FeatureCache(sys.argv[1])
PretrainedFeatureExtractor(network, image_size=16, cache=cache).transform(images)
print(cache.info().n_rows)
"""


@pytest.mark.slow
def test_rows_are_found_again_in_another_process(tmp_path):
    here = pathlib.Path(__file__).parents[1]
    search = [str(here.parent), str(here / "support"), os.environ.get("PYTHONPATH", "")]
    for _ in range(2):
        run = run_python(
            ["-c", SCRIPT, tmp_path],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search)},
        )
        assert run.stdout.split() == ["6"], run.stderr
    assert rows_counted(tmp_path / "log") == 6


def test_without_a_cache_nothing_is_run_twice(images):
    class Counting(Net):
        n_images = []

        def forward(self, x):
            if x.device.type != "meta":
                self.n_images.append(len(x))
            return super().forward(x)

    extractor(Counting(), None).transform(images)
    assert sum(Counting.n_images) == len(images)


def test_answers_that_differ_are_not_cached(images, tmp_path):
    class Random(Net):
        def forward(self, x):
            return torch.dropout(super().forward(x), 0.5, True)

    cache, network = FeatureCache(tmp_path), Random()
    one = extractor(network, cache)
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = one.transform(np.concatenate([images, images[:2]]))
        [warning] = caught
        assert warning.category is CacheWarning
        assert "'Random' are not cached" in str(warning.message)
        np.testing.assert_array_equal(rows[:2], rows[6:])  # once each
        assert cache.info().n_rows == 0


def test_an_error_of_the_network_is_that_of_the_network(images, tmp_path):
    class Broken(Net):
        def forward(self, x):
            if x.device.type != "meta":
                raise ZeroDivisionError("a mistake in forward")
            return super().forward(x)

    with pytest.raises(ZeroDivisionError, match="a mistake in forward"):
        extractor(Broken(), tmp_path).transform(images)


@pytest.mark.parametrize(
    "train",
    [
        lambda network: network.conv.weight.data.mul_(2),
        lambda network: network.conv.weight.data.copy_(network.conv.weight * 2),
        lambda network: setattr(network, "factor", 2.0),
        lambda network: network.load_state_dict(
            {name: 2 * value for name, value in network.state_dict().items()}
        ),
    ],
    ids=["in place", "p.data", "attribute", "load_state_dict"],
)
def test_a_network_trained_meanwhile_computes_what_its_key_says(
    train, images, tmp_path
):
    cache, network = FeatureCache(tmp_path), Net()
    wanted = extractor(Net(), None).transform(images)

    compute_features, is_trained = _extraction.compute_features, threading.Event()

    def compute(*args):
        thread = threading.Thread(target=train, args=[network])
        thread.start()
        thread.join()
        is_trained.set()
        return compute_features(*args)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(_extraction, "compute_features", compute)
        np.testing.assert_array_equal(
            extractor(network, cache).transform(images), wanted
        )
    assert is_trained.is_set()
    np.testing.assert_array_equal(extractor(Net(), cache).transform(images), wanted)
    assert cache.info().n_rows == 6
    changed = extractor(network, cache).transform(images)
    assert not np.allclose(changed, wanted)
    assert cache.info().n_rows == 12


def test_extract_to_recognizes_its_file(images, tmp_path, monkeypatch):
    path = tmp_path / "rows.npy"
    extractor(Net(), None).extract_to(images, path)
    before = path.stat().st_mtime_ns
    extractor(Net(), None).extract_to(images, path)
    extractor(Net(), tmp_path / "cache").extract_to(images, path)
    assert path.stat().st_mtime_ns == before
    monkeypatch.setitem(globals(), "scale", lambda x: x * 1.01)
    with pytest.raises(FileExistsError, match="probe"):
        extractor(Net(), None).extract_to(images, path)


def test_workers_and_mappers_find_the_same_rows(images, tmp_path):
    cache, network = FeatureCache(tmp_path / "c"), CountingNet(tmp_path / "log")
    rows = extractor(network, cache).transform(images)
    with joblib.parallel_config("loky"):
        again = extractor(network, cache, n_jobs=2).transform(images)
    mapper = FeatureMapper(extractor(network, cache))
    batch = mapper({"image": images})
    np.testing.assert_array_equal(again, rows)
    np.testing.assert_array_equal(batch["features"], rows)
    assert rows_counted(tmp_path / "log") == len(images)
    assert cache.info().n_rows == len(images)


def test_cache_layers_of_a_users_network(images, tmp_path):
    cache = FeatureCache(tmp_path)
    one = extractor(SmallNet(), cache, layer="last", cache_layers=["stem"])
    one.transform(images)
    assert cache.info().n_rows == 12
    neck = extractor(SmallNet(), cache, layer="stem")
    neck.transform(images)
    assert cache.info().n_rows == 12


def test_tuned_networks_stay_cached_and_are_right(images, tmp_path):
    cache, y = FeatureCache(tmp_path), np.arange(6) % 2
    tuned = FineTuneClassifier(
        SmallNet(), image_size=16, max_epochs=1, cache=cache, device="cpu",
        random_state=0,
    ).fit(images, y)  # fmt: skip
    first = tuned.transform(images)
    n_rows = cache.info().n_rows
    np.testing.assert_array_equal(tuned.transform(images), first)
    assert cache.info().n_rows == n_rows
    tuned.partial_fit(images, y)
    second = tuned.transform(images)
    assert not np.array_equal(first, second)
    without = clone(tuned).set_params(cache=None)
    vars(without).update({k: v for k, v in vars(tuned).items() if k.endswith("_")})
    np.testing.assert_allclose(without.transform(images), second, rtol=1e-4, atol=1e-5)
    rows = extractor(tuned.body_, cache).transform(images)
    np.testing.assert_array_equal(extractor(tuned.body_, cache).transform(images), rows)


def test_a_network_with_a_lock_is_cloned(images):
    network = Net()
    network.conv.lock = threading.Lock()
    one = extractor(network, None).set_output(transform="default")
    cloned = clone(one)
    assert cloned.model is not network
    assert cloned.model.conv.lock is network.conv.lock
    assert cloned.get_params()["image_size"] == 16
    np.testing.assert_array_equal(cloned.transform(images), one.transform(images))


def test_a_network_that_refuses_to_be_copied():
    class Sealed(Net):
        def __deepcopy__(self, memo):
            raise RuntimeError("sealed")

    with pytest.raises(TypeError, match="'model' .*deepcopy.*Sealed cannot be: sealed"):
        clone(extractor(Sealed(), None))
