"""Each file is read once: what was hashed is what is decoded."""

import os
import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor, TimeoutError

import joblib
import numpy as np
import pytest
from networks import CountingNet, OddNet, rows_counted
from PIL import Image

from skdeepfeat import BadImageWarning, NonFiniteOutputError, PretrainedFeatureExtractor
from skdeepfeat.exceptions import BadImageError
from skdeepfeat.feature_extraction import _extraction, _workers
from skdeepfeat.images import _files, _list_source

N = 7


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (N, 40, 40, 3), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i}.png")
    return [str(folder / f"{i}.png") for i in range(N)]


@pytest.fixture
def opened(monkeypatch, paths):
    """The images that were opened, in this process."""
    names, open_file = [], os.open

    def noting(path, *args, **kwargs):
        if str(path) in paths:
            names.append(pathlib.Path(path).name)
        return open_file(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", noting)
    return names


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def in_small_parts(monkeypatch):
    """Compute each image while the next ones are read, as from a very slow disk."""
    monkeypatch.setattr(_list_source, "_FIRST_SECONDS", 0)
    monkeypatch.setattr(_files, "_LEAST_IN_PART", 1)
    monkeypatch.setattr(_files, "_KEPT_AT_ONCE", 1)


def make(log, **parameters):
    parameters = {"image_size": 32, "batch_size": 2, "device": "cpu", **parameters}
    return PretrainedFeatureExtractor(CountingNet(log), **parameters)


def expected(paths, tmp_path):
    """Return the rows of images in memory."""
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    return make(tmp_path / "other.log", cache=None).transform(images)


@pytest.mark.parametrize("cache", [None, "rows"])
def test_three_files_three_opens(cache, paths, opened, log, tmp_path):
    extractor = make(log, cache=cache and tmp_path / cache)
    rows = extractor.transform(paths[:3])
    assert sorted(opened) == ["0.png", "1.png", "2.png"]
    np.testing.assert_allclose(rows, expected(paths[:3], tmp_path), rtol=1e-5)


def test_new_files_among_known_ones_are_read_once(paths, opened, log, tmp_path):
    extractor = make(log, cache=tmp_path / "rows")
    extractor.transform(paths[:3])
    opened.clear()
    rows = extractor.transform(paths)
    assert set(opened) >= {f"{i}.png" for i in range(3, N)}
    assert len(opened) == len(set(opened))
    np.testing.assert_allclose(rows, expected(paths, tmp_path), rtol=1e-5)


def test_duplicates_are_read_and_computed_once(paths, opened, log, tmp_path):
    shutil.copy(paths[0], paths[2])
    X = [paths[i] for i in (0, 1, 0, 2, 1)]
    rows = make(log, cache=None).transform(X)
    assert sorted(opened) == ["0.png", "1.png", "2.png"]
    assert rows_counted(log) == 2
    np.testing.assert_array_equal(rows, rows[[0, 1, 0, 0, 1]])


def test_extract_to(paths, opened, log, tmp_path):
    path = make(log, cache=None).extract_to(paths, tmp_path / "features.npy")
    opened = [name for name in opened if name.endswith(".png")]
    assert sorted(opened) == [f"{i}.png" for i in range(N)]
    np.testing.assert_allclose(np.load(path), expected(paths, tmp_path), rtol=1e-5)


@pytest.mark.parametrize(
    "backend", ["threading", pytest.param("loky", marks=pytest.mark.slow)]
)
def test_workers_are_given_what_was_read(
    backend, paths, opened, log, tmp_path, monkeypatch
):
    wanted = expected(paths, tmp_path)
    compute_in_shards = _workers.compute_in_shards

    def without_files(*args):
        for path in paths:
            os.unlink(path)
        return compute_in_shards(*args)

    monkeypatch.setattr(_extraction, "compute_in_shards", without_files)
    opened.clear()
    with joblib.parallel_config(backend, n_jobs=2):
        rows = make(log, cache=None).transform(paths)
    assert sorted(opened) == [f"{i}.png" for i in range(N)]
    np.testing.assert_allclose(rows, wanted, rtol=1e-5)


@pytest.mark.parametrize("cache", [None, "rows"])
def test_parts(cache, in_small_parts, paths, opened, log, tmp_path):
    shutil.copy(paths[0], paths[5])
    X = [*paths, paths[1]]
    rows = make(log, cache=cache and tmp_path / cache).transform(X)
    assert sorted(opened) == [f"{i}.png" for i in range(N)]
    assert rows_counted(log) == N - 1
    np.testing.assert_allclose(rows, expected(X, tmp_path), rtol=1e-5)


def test_broken_files_in_several_parts(in_small_parts, paths, log, tmp_path):
    wanted = expected(paths, tmp_path)
    for i in (0, 4, 6):
        pathlib.Path(paths[i]).write_bytes(b"not an image")
    os.unlink(paths[2])
    extractor = make(log, cache=None)
    with pytest.raises(BadImageError) as error:
        extractor.transform(paths)
    assert error.value.index == 0
    with pytest.warns(BadImageWarning) as caught:
        rows = extractor.set_params(on_error="nan").transform(paths)
    [warning] = caught
    assert [one.index for one in warning.message.failures] == [0, 2, 4, 6]
    good = [1, 3, 5]
    assert np.isnan(rows[[0, 2, 4, 6]]).all()
    np.testing.assert_allclose(rows[good], wanted[good], rtol=1e-5)


def test_images_without_finite_rows_in_several_parts(in_small_parts, paths, tmp_path):
    for i in (1, 5):
        Image.new("RGB", (40, 40), "white").save(paths[i])
    extractor = PretrainedFeatureExtractor(
        OddNet(), image_size=32, device="cpu", cache=tmp_path / "rows"
    )
    with pytest.raises(NonFiniteOutputError) as error:
        extractor.transform(paths)
    assert error.value.indices == (1, 5)
    rest = [path for i, path in enumerate(paths) if i not in (1, 5)]
    assert np.isfinite(extractor.transform(rest)).all()


@pytest.mark.parametrize("parts", [True, False])
def test_what_is_kept_is_limited(parts, paths, opened, log, tmp_path, monkeypatch):
    if parts:
        monkeypatch.setattr(_list_source, "_FIRST_SECONDS", 0)
        monkeypatch.setattr(_files, "_LEAST_IN_PART", 2)
    size = max(os.path.getsize(path) for path in paths)
    held, put = [], _files.KeptFiles.put

    def noting(kept, path, data):
        put(kept, path, data)
        held.append(sum(map(len, kept._contents.values())))

    monkeypatch.setattr(_files.KeptFiles, "put", noting)
    make_kept = _files.KeptFiles
    monkeypatch.setattr(_list_source, "KeptFiles", lambda **_: make_kept(2 * size))
    rows = make(log, cache=None).transform(paths)
    assert 0 < max(held) <= 2 * size
    assert N <= len(opened) <= 2 * N - 1
    np.testing.assert_allclose(rows, expected(paths, tmp_path), rtol=1e-5)


def test_a_part_takes_most_of_the_room(paths, monkeypatch):
    def read_when_needed(function, items, n_per_task):
        return (function(item) for item in items)

    monkeypatch.setattr(_files, "hash_in_threads", read_when_needed)
    size, kept = sum(map(os.path.getsize, paths[:4])), _files.KeptFiles
    monkeypatch.setattr(_list_source, "KeptFiles", lambda **_: kept(size))
    source = _list_source.ListSource(paths, None)
    parts = source.digests_in_parts()
    assert [len(digests) for digests, _ in parts] == [3, 3, 1]


def test_files_that_wait_for_room_do_not_make_small_parts():
    kept = _files.KeptFiles(10, patience=60)
    assert kept.reserve(10)
    kept.put("a", b"0123456789")
    kept.set_awaited(False)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(kept.reserve, 4)
        kept.set_awaited(True)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.05)
        assert not kept.was_full
        assert kept.take("a") == b"0123456789"
        assert waiting.result(timeout=60)


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_file_that_changes_meanwhile(is_kept, paths, log, tmp_path, monkeypatch):
    before = expected(paths, tmp_path)
    compute = _extraction.compute_features

    def change_first(*args):
        shutil.copy(paths[1], paths[0])
        return compute(*args)

    monkeypatch.setattr(_extraction, "compute_features", change_first)
    if not is_kept:
        kept = _files.KeptFiles
        monkeypatch.setattr(_list_source, "KeptFiles", lambda **_: kept(0))
    extractor = make(log, cache=tmp_path / "rows")
    if is_kept:
        np.testing.assert_allclose(extractor.transform(paths), before, rtol=1e-5)
    else:
        with pytest.raises(BadImageError, match="changed while it was being read"):
            extractor.transform(paths)
    # Its row is that of its new content from now on.
    rows = extractor.transform(paths)
    np.testing.assert_allclose(rows[0], before[1], rtol=1e-5)


def test_an_interrupted_reading_leaves_no_thread_behind(
    in_small_parts, paths, log, monkeypatch
):
    kept = _files.KeptFiles
    size = os.path.getsize(paths[0])
    monkeypatch.setattr(_list_source, "KeptFiles", lambda **_: kept(size))
    source = _list_source.ListSource(paths, None)
    parts = source.digests_in_parts()
    next(parts)
    parts.close()
    assert source._kept.reserve(10**9) is False  # and does not wait
