"""Misses shared out among joblib's workers: the rows are those of one process."""

import io
import logging
import os
import pickle
import subprocess
import sys
import threading
import warnings

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from networks import CountingNet, DyingNet, FailingNet, rows_counted
from PIL import Image
from torch import nn

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FeatureCache,
    PretrainedFeatureExtractor,
)
from skdeepfeat.feature_extraction import ExtractionSettings, _workers
from skdeepfeat.networks import resolve_neck

N = 60
SUPPORT = os.path.dirname(sys.modules["networks"].__file__)


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (N, 24, 24, 3), dtype=np.uint8)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def extractor(net, **parameters):
    return PretrainedFeatureExtractor(
        net, **{"image_size": 16, "batch_size": 4, "cache": None, **parameters}
    )


def encoded(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def processes_counted(log):
    return {int(line.split()[1]) for line in log.read_text().splitlines()}


def assert_close(rows, expected):
    """Compare to what is asked of every way of running: 1e-5, relative to the row."""
    assert rows.shape == expected.shape
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(rows - expected) <= 1e-5 * scale).all()


# -- Within one process: joblib's threads


KINDS = {
    "array": lambda pixels, folder: pixels,
    "float array": lambda pixels, folder: pixels / 255.0,
    "tensor": lambda pixels, folder: torch.from_numpy(pixels).movedim(-1, 1),
    "bytes": lambda pixels, folder: [encoded(one) for one in pixels],
    "PIL": lambda pixels, folder: [Image.fromarray(one) for one in pixels],
    "mixed": lambda pixels, folder: [*map(encoded, pixels[:30]), *pixels[30:]],
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_one_process(pixels, log, tmp_path, kind):
    X = KINDS[kind](pixels, tmp_path)
    expected = extractor(CountingNet(log)).transform(X)
    log.unlink()
    with joblib.parallel_config(backend="threading", n_jobs=3):
        rows = extractor(CountingNet(log)).transform(X)
    assert_close(rows, expected)
    assert rows_counted(log) == N


def test_several_layers(pixels):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    neck = extractor(net, layer=["0", "2"])
    expected = neck.transform(pixels)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert_close(neck.transform(pixels), expected)


def test_a_named_network(pixels):
    neck = extractor("efficientnet_lite0", image_size=32)
    expected = neck.transform(pixels[:12])
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert_close(neck.transform(pixels[:12]), expected)


def test_only_what_is_missing_is_shared_out(pixels, log, tmp_path):
    neck = extractor(CountingNet(log), cache=tmp_path / "cache")
    expected = neck.transform(pixels[::3])
    with joblib.parallel_config(backend="threading", n_jobs=2):
        rows = neck.transform(pixels[::-1])
    assert rows_counted(log) == N
    assert_close(rows[::-1][::3], expected)
    with joblib.parallel_config(backend="threading", n_jobs=2):
        np.testing.assert_array_equal(neck.transform(pixels[::-1]), rows)
    assert rows_counted(log) == N


BROKEN = {7: b"no image", 8: b"no image", 41: None, 59: b"\x89PNG cut off"}


@pytest.fixture
def with_broken(pixels):
    X = [encoded(one) for one in pixels]
    for row, value in BROKEN.items():
        X[row] = value
    return X


def test_broken_images_keep_their_rows(with_broken, log):
    def transform():
        with pytest.warns(BadImageWarning) as caught:
            rows = extractor(CountingNet(log), on_error="nan").transform(with_broken)
        return rows, [(error.index, str(error)) for error in caught[0].message.failures]

    expected, failures = transform()
    with joblib.parallel_config(backend="threading", n_jobs=3):
        rows, found = transform()
    assert found == failures
    assert [row for row, _ in found] == list(BROKEN)
    good = ~np.isnan(rows).any(axis=1)
    assert np.flatnonzero(~good).tolist() == list(BROKEN)
    assert_close(rows[good], expected[good])


def test_the_first_broken_image_ends_the_work(with_broken, log, tmp_path, monkeypatch):
    monkeypatch.setenv("SECONDS_AN_IMAGE", "0.005")
    neck = extractor(CountingNet(log), cache=tmp_path / "cache", batch_size=1)
    with_broken[41] = with_broken[40]  # known to be missing before any work is done
    with joblib.parallel_config(backend="threading", n_jobs=2):
        with pytest.raises(BadImageError) as caught:
            neck.transform(with_broken)
    assert caught.value.index == 7
    assert caught.value.origin == "encoded bytes"
    assert rows_counted(log) < N - 20
    assert FeatureCache(tmp_path / "cache").info().n_rows == rows_counted(log)


def test_a_mistake_in_the_network_is_raised_and_nothing_lost(pixels, log, tmp_path):
    neck = extractor(FailingNet(log, after=20), cache=tmp_path / "cache")
    with joblib.parallel_config(backend="threading", n_jobs=2):
        with pytest.raises(ZeroDivisionError, match="a mistake") as caught:
            neck.transform(pixels)
    assert "In a worker on " in caught.value.__notes__[0]
    assert "in forward" in caught.value.__notes__[0]
    assert FeatureCache(tmp_path / "cache").info().n_rows == rows_counted(log)


# -- How many workers


def test_workers_are_counted_as_scikit_learn_does():
    assert _workers.count_workers(None) == 1
    assert _workers.count_workers(1) == 1
    assert _workers.count_workers(3) == 3
    assert _workers.count_workers(-1) == joblib.cpu_count()
    with joblib.parallel_config(backend="threading", n_jobs=5):
        assert _workers.count_workers(None) == 5
        assert _workers.count_workers(2) == 2
    with pytest.raises(ValueError, match="n_jobs == 0"):
        _workers.count_workers(0)


@pytest.mark.parametrize("n_jobs", [None, 2, -1])
def test_within_a_parallel_job_there_is_one_worker(n_jobs):
    with joblib.parallel_config(backend="threading", n_jobs=2):
        found = joblib.Parallel()(
            joblib.delayed(_workers.count_workers)(n_jobs) for _ in range(4)
        )
    assert found == [1] * 4


@pytest.mark.parametrize("n_jobs", ["2", 1.5, [2]])
def test_n_jobs_is_checked(pixels, n_jobs):
    with pytest.raises(ValueError, match="The 'n_jobs' parameter .*PretrainedFeature"):
        extractor("efficientnet_lite0", n_jobs=n_jobs).fit(pixels)


def test_shards_are_whole_batches_several_for_each_worker():
    neck = resolve_neck("efficientnet_lite0", image_size=32)
    for n_images, batch_size, n_workers, expected in [
        (1000, 10, 2, 40),  # at most four batches
        (100, 10, 2, 20),
        (60, 4, 3, 8),
        (5, 32, 2, 32),
        (1, 1, 8, 1),
    ]:
        settings = ExtractionSettings(batch_size=batch_size)
        found = _workers._shard_size(n_images, neck, settings, n_workers)
        assert found == expected
    settings = ExtractionSettings(device="cpu")
    assert _workers._shard_size(10**5, neck, settings, 2) == 4 * (
        neck.suggested_batch_size("cpu", "openvino")
    )


# -- What travels


class CountsPickling:
    n_times = 0

    def __reduce__(self):
        type(self).n_times += 1
        return dict, ()


def test_a_parcel_is_packed_once_and_opened_once(monkeypatch):
    monkeypatch.setattr(_workers, "_opened", type(_workers._opened)())
    content = CountsPickling()
    payload = _workers._Payload(content, remembered=True)
    assert payload.open() is content
    assert CountsPickling.n_times == 0
    first, second = (pickle.loads(pickle.dumps(payload)) for _ in range(2))
    assert CountsPickling.n_times == 1
    assert first.open() is second.open() == {}
    other = pickle.loads(pickle.dumps(_workers._Payload([1], remembered=True)))
    third = pickle.loads(pickle.dumps(_workers._Payload([2], remembered=True)))
    assert (other.open(), third.open()) == ([1], [2])
    assert len(_workers._opened) == 2
    assert first.open() is not None  # forgotten meanwhile, so it is opened again
    assert pickle.loads(pickle.dumps(_workers._Payload([1]))).open() == [1]
    assert len(_workers._opened) == 2


def test_large_parcels_show_their_size():
    assert sys.getsizeof(_workers._Payload(b"small")) < 1000
    assert sys.getsizeof(_workers._Payload(bytes(2**21))) > 2**21


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        # tblib, which Dask brings, lets errors travel that other arguments made.
        self.lock = threading.Lock()


def test_errors_that_cannot_travel_say_the_same():
    try:
        raise Unpicklable("this", "that")
    except Exception as error:
        found = pickle.loads(pickle.dumps(_workers._portable(error)))
    assert str(found) == "Unpicklable: this and that"
    assert "raise Unpicklable" in found.__notes__[0]


NECKS = [
    {"model": "efficientnet_lite0"},
    {"model": "resnet18", "weights": "random"},
    {"model": "timm/resnet18", "weights": "random", "layer": [1, "neck"]},
    {"model": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), "layer": "0"},
]


@pytest.mark.parametrize(
    ("parameters", "library"),
    [*((parameters, pickle) for parameters in NECKS), (NECKS[-1], cloudpickle)],
    ids=str,
)
def test_necks_travel(parameters, library):
    neck = resolve_neck(**parameters, image_size=32)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    other = pickle.loads(library.dumps(neck))
    with neck.loaded("cpu") as run, other.loaded("cpu") as run_there:
        for rows, expected in zip(run_there(images), run(images), strict=True):
            np.testing.assert_array_equal(rows, expected)


def test_embedded_weights_are_found_where_they_arrive():
    # In another environment, the package may lie elsewhere.
    weights = resolve_neck("efficientnet_lite0").spec.weights
    assert weights.path.encode() not in pickle.dumps(weights)
    assert pickle.loads(pickle.dumps(weights)) == weights


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_network_on_a_gpu_travels_on_the_cpu():
    net = nn.Conv2d(3, 4, 3).to("cuda")
    neck = pickle.loads(pickle.dumps(resolve_neck(net, image_size=16)))
    devices = {parameter.device.type for parameter in neck.spec.module.parameters()}
    assert devices == {"cpu"}
    assert neck.spec.build().weight.device.type == "cpu"
    assert net.weight.device.type == "cuda"


# -- Processes of this machine: loky


@pytest.fixture
def loky(monkeypatch):
    """Return the workers to a state in which they know nothing of other tests."""
    from joblib.externals.loky import get_reusable_executor

    monkeypatch.setenv("PYTHONPATH", SUPPORT)
    get_reusable_executor().shutdown(kill_workers=True)
    yield
    get_reusable_executor().shutdown(kill_workers=True)


@pytest.mark.slow
def test_loky(pixels, with_broken, log, loky, tmp_path, monkeypatch):
    paths = []
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(tmp_path / f"{i}.png")
        paths.append(f"{i}.png")
    monkeypatch.chdir(tmp_path)
    expected = extractor(CountingNet(log)).transform(paths)
    log.unlink()
    monkeypatch.setenv("SECONDS_AN_IMAGE", "0.01")
    assert_close(extractor(CountingNet(log), n_jobs=2).transform(paths), expected)
    assert rows_counted(log) == N
    assert os.getpid() not in processes_counted(log)
    assert len(processes_counted(log)) == 2
    # The same workers do without loading anything, and say the same.
    monkeypatch.chdir("/")
    rows = extractor(CountingNet(log), n_jobs=2).transform(list(pixels))
    assert_close(rows, expected)
    assert len(processes_counted(log)) == 2
    # And tell of what they cannot read.
    with pytest.warns(BadImageWarning) as caught:
        extractor(CountingNet(log), on_error="nan", n_jobs=2).transform(with_broken)
    assert [error.index for error in caught[0].message.failures] == list(BROKEN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with_broken[41] = with_broken[40]
        with pytest.raises(BadImageError, match="index 7, encoded bytes"):
            extractor(CountingNet(log), n_jobs=2).transform(with_broken)
    assert len(processes_counted(log)) == 2


@pytest.mark.slow
def test_a_loky_worker_that_is_killed(pixels, log, loky, tmp_path, monkeypatch, caplog):
    expected = extractor(CountingNet(log)).transform(pixels)
    log.unlink()
    net = DyingNet(log, after=N // 2)
    neck = extractor(net, n_jobs=2, cache=tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        assert_close(neck.transform(pixels), expected)
    assert "workers of joblib were lost" in caplog.text
    # Two workers lose what each had in hand, and what had just arrived.
    assert N <= rows_counted(log) <= N + 4 * 8
    assert (tmp_path / "log.killed").exists()


@pytest.mark.slow
def test_workers_that_always_die_are_an_error(pixels, log, loky):
    net = DyingNet(log, after=0, always=True)
    with pytest.raises(RuntimeError, match="broke down twice .*n_jobs=1"):
        extractor(net, n_jobs=2).transform(pixels)
    extractor(net, n_jobs=1).transform(pixels[:4])


@pytest.mark.slow
def test_a_network_that_cannot_be_sent_is_named(pixels, log, loky):
    net = CountingNet(log)
    net.lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot pickle '_thread.lock'.*n_jobs=1"):
        extractor(net, n_jobs=2).transform(pixels)
    assert extractor(net, n_jobs=1).transform(pixels).shape[0] == len(pixels)


IN_WORKERS = """
import joblib, torch
from skdeepfeat.feature_extraction._workers import count_workers

def look(n_jobs):
    return count_workers(n_jobs), torch.get_num_threads()

def search():
    return joblib.Parallel(n_jobs=2)(joblib.delayed(look)(n) for n in (None, 2, -1, 2))

if __name__ == "__main__":
    print(search(), joblib.cpu_count())
"""


@pytest.mark.slow
def test_workers_share_the_cores_and_do_not_nest(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IN_WORKERS)
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=env, check=True
    )
    found, n_cores = eval(f"({done.stdout.strip().replace('] ', '], ')})")
    assert found == [(1, max(1, n_cores // 2))] * 4
