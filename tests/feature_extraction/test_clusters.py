"""Real Dask and Ray clusters on this machine, with two worker processes each."""

import logging
import os
import sys
import warnings

import joblib
import numpy as np
import pytest
from networks import CountingNet, DyingNet, FailingNet, rows_counted
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skdeepfeat import (
    BadImageError,
    BadImageWarning,
    FeatureCache,
    FeatureMapper,
    PretrainedFeatureExtractor,
)
from skdeepfeat.feature_extraction import _workers

pytestmark = pytest.mark.slow

N = 64
SUPPORT = os.path.dirname(sys.modules["networks"].__file__)

# What the clusters say of themselves, and no more than that.
NOISE = [
    (DeprecationWarning, "ray\\."),
    (FutureWarning, "ray\\."),
    (ResourceWarning, ".*"),  # sockets and log files of processes that were killed
]


@pytest.fixture(autouse=True)
def only_their_warnings():
    with warnings.catch_warnings():
        for category, module in NOISE:
            warnings.filterwarnings("ignore", category=category, module=module)
        yield


@pytest.fixture(scope="module")
def module_patch():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SUPPORT)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        yield patch


@pytest.fixture(scope="module")
def dask(module_patch):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address="localhost:0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def all_workers(dask):
    """Wait until the workers that an earlier test has killed are there again."""
    dask.wait_for_workers(2, timeout=240)


@pytest.fixture(scope="module")
def ray(module_patch):
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    register_ray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ray's own modules, as they are imported
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(params=["dask", "ray"])
def cluster(request):
    """Send joblib's work to a cluster."""
    request.getfixturevalue("all_workers" if request.param == "dask" else request.param)
    with joblib.parallel_config(backend=request.param, n_jobs=2):
        yield request.param


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (N, 24, 24, 3), dtype=np.uint8)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def expected(pixels, tmp_path):
    net = CountingNet(tmp_path / "another log")
    return extractor(net, n_jobs=1).transform(pixels)


def extractor(net, **parameters):
    return PretrainedFeatureExtractor(
        net, **{"image_size": 16, "batch_size": 4, "cache": None, **parameters}
    )


def assert_close(rows, expected):
    scale = np.abs(expected).max(axis=1, keepdims=True)
    assert (np.abs(rows - expected) <= 1e-5 * scale).all()


def processes_counted(log):
    return {int(line.split()[1]) for line in log.read_text().splitlines()}


@pytest.fixture
def files(pixels, tmp_path, monkeypatch):
    """The pixels as files, of which one is broken, named from where they are."""
    monkeypatch.chdir(tmp_path)
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(f"{i}.png")
    (tmp_path / "50.png").write_bytes(b"no image")
    return [f"{i}.png" for i in range(N)]


# Only on Dask, because each worker of Ray imports torch, which takes long. The rows of
# Ray are compared in `test_a_worker_that_is_killed`.
def test_rows_are_those_of_one_process(all_workers, files, expected, log, tmp_path):
    neck = extractor(CountingNet(log), on_error="nan", cache=tmp_path / "cache")
    with (
        joblib.parallel_config(backend="dask", n_jobs=2),
        pytest.warns(BadImageWarning) as caught,
    ):
        rows = neck.transform(files)
    [failure] = caught[0].message.failures
    assert (failure.index, failure.origin) == (50, "50.png")
    good = np.arange(N) != 50
    assert_close(rows[good], expected[good])
    assert np.isnan(rows[50]).all()
    assert os.getpid() not in processes_counted(log)
    # Workers have stored nothing; the caller has.
    assert FeatureCache(tmp_path / "cache").info().n_rows == N - 1 == rows_counted(log)


def test_a_broken_image_is_an_error(all_workers, files, log):
    with joblib.parallel_config(backend="dask", n_jobs=2):
        with pytest.raises(BadImageError, match="index 50, 50.png"):
            extractor(CountingNet(log)).transform(files)


def test_a_worker_that_is_killed(cluster, pixels, expected, log, tmp_path, caplog):
    neck = extractor(DyingNet(log, after=N // 2), cache=tmp_path / "cache")
    with caplog.at_level(logging.WARNING, logger="skdeepfeat"):
        assert_close(neck.transform(pixels), expected)
    assert (tmp_path / "log.killed").exists()
    # Dask itself gives a lost shard to another worker; of Ray's, whose joblib backend
    # returns shards by fours, that many are computed again.
    ours = [one for one in caplog.records if one.name.startswith("skdeepfeat")]
    assert len(ours) == (0 if cluster == "dask" else 1)
    assert N < rows_counted(log) <= N + 4 * 8
    assert os.getpid() not in processes_counted(log)
    assert FeatureCache(tmp_path / "cache").info().n_rows == N


def test_a_mistake_in_the_network(cluster, pixels, log, tmp_path):
    neck = extractor(FailingNet(log, after=20), cache=tmp_path / "cache")
    with pytest.raises(ZeroDivisionError, match="a mistake") as caught:
        neck.transform(pixels)
    assert "in forward" in caught.value.__notes__[0]
    assert FeatureCache(tmp_path / "cache").info().n_rows == rows_counted(log)


def test_large_networks_are_placed_once(all_workers, pixels, log, expected, caplog):
    import torch

    net = CountingNet(log)
    net.large = torch.nn.Parameter(torch.zeros(4_000_000))
    with joblib.parallel_config(backend="dask"):
        # Dask warns, which is an error here, of tasks of more than 10 MB.
        assert_close(extractor(net).transform(pixels), expected)


def test_a_search_on_dask_workers_does_not_nest(all_workers, pixels, log, tmp_path):
    pipe = make_pipeline(
        extractor(CountingNet(log), cache=tmp_path / "cache"), LogisticRegression()
    )
    grid = {"logisticregression__C": [0.1, 1, 10]}
    with joblib.parallel_config(backend="dask"):
        GridSearchCV(pipe, grid, cv=4, refit=False).fit(pixels, np.arange(N) % 2)
    assert rows_counted(log) == N


def test_within_a_dask_task_there_is_one_worker(all_workers, dask):
    with joblib.parallel_config(backend="dask"):
        assert _workers.count_workers(None) == 2
        found = joblib.Parallel()(
            joblib.delayed(_workers.count_workers)(n) for n in (None, 2, -1)
        )
    assert found == [1, 1, 1]


def test_ray_data(ray, pixels, expected, log):
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items(
        [{"image": one, "label": i} for i, one in enumerate(pixels)]
    )
    data = data.map_batches(
        FeatureMapper,
        fn_constructor_args=[
            PretrainedFeatureExtractor(
                CountingNet(log), image_size=16, runtime="torch", cache=None
            )
        ],
        batch_size=8,
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
    )
    rows = sorted(data.take_all(), key=lambda row: row["label"])
    assert_close(np.stack([row["features"] for row in rows]), expected)
    np.testing.assert_array_equal(rows[3]["image"], pixels[3])
    assert rows_counted(log) == N
    assert len(processes_counted(log)) == 1
