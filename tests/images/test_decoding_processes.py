"""Processes decode what threads would, and none is left behind."""

import contextlib
import logging
import multiprocessing
import os
import pathlib
import signal

import numpy as np
import pytest
from PIL import Image

from skdeepfeat import BadImageError, PretrainedFeatureExtractor
from skdeepfeat.feature_extraction import _compute
from skdeepfeat.images import (
    N_AT_ONCE,
    ByteBudget,
    DecodingProcesses,
    _decoding_processes,
    can_decode_in_processes,
    make_image_source,
)
from skdeepfeat.networks import resolve_neck

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs forks"
)


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for i in range(20):
        path = tmp_path / f"{i:02d}.{'png' if i % 3 else 'jpg'}"
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
        found.append(str(path))
    return found


@pytest.fixture
def preprocessing():
    return resolve_neck("efficientnet_lite0", image_size=32).preprocessing


def children():
    return [one for one in multiprocessing.active_children() if "decode" in one.name]


def load(X, preprocessing, budget=None):
    """Return what processes load of X, in parts of the size that they take."""
    source = make_image_source(X)
    source.digests(keeps=True)
    results = []
    with DecodingProcesses(source, preprocessing) as processes:
        assert children()
        for start in range(0, len(source), N_AT_ONCE):
            part = list(range(start, min(start + N_AT_ONCE, len(source))))
            results += processes.load(part, budget or ByteBudget())
    assert not children()
    return results


def test_pixels_are_those_of_this_process(paths, preprocessing):
    source = make_image_source(paths)
    for i, pixels in enumerate(load(paths, preprocessing)):
        np.testing.assert_array_equal(pixels, source.fitted(i, preprocessing))


@pytest.mark.parametrize("as_what", ["bytes", "pil", "array", "open file", "dict"])
def test_other_forms_of_images(as_what, paths, preprocessing):
    with contextlib.ExitStack() as stack:
        X = [
            {
                "bytes": lambda path: pathlib.Path(path).read_bytes(),
                "pil": Image.open,
                "array": lambda path: np.asarray(Image.open(path)),
                "open file": lambda path: stack.enter_context(open(path, "rb")),
                "dict": lambda path: {"bytes": pathlib.Path(path).read_bytes()},
            }[as_what](path)
            for path in paths
        ]
        found = load(X, preprocessing)
    source = make_image_source(paths)
    for i, pixels in enumerate(found):
        np.testing.assert_array_equal(pixels, source.fitted(i, preprocessing))


def test_images_that_cannot_be_read_are_named(paths, preprocessing):
    data = pathlib.Path(paths[4]).read_bytes()
    pathlib.Path(paths[4]).write_bytes(data[: len(data) // 2])
    os.remove(paths[11])
    found = load(paths, preprocessing)
    bad = {i: one for i, one in enumerate(found) if isinstance(one, BadImageError)}
    assert set(bad) == {4, 11}
    assert bad[4].index == 4 and "04.png" in str(bad[4])
    assert "no such file" in str(bad[11])


def test_a_file_that_changes_after_its_digest_is_refused(paths, preprocessing):
    source = make_image_source(paths)
    source.digests()
    Image.new("RGB", (9, 9)).save(paths[2])
    with DecodingProcesses(source, preprocessing) as processes:
        found = processes.load([1, 2], ByteBudget())
    assert isinstance(found[0], np.ndarray)
    assert "changed" in str(found[1])


def test_what_was_read_is_not_read_again(paths, preprocessing):
    source = make_image_source(paths)
    source.digests(keeps=True)
    for path in paths:
        os.remove(path)
    with DecodingProcesses(source, preprocessing) as processes:
        found = processes.load(list(range(N_AT_ONCE)), ByteBudget())
    assert all(isinstance(one, np.ndarray) for one in found)
    assert source._kept.n_bytes_of(paths[0]) == 0


def test_an_image_beyond_the_bytes_of_a_process_is_decoded_here(
    paths, preprocessing, monkeypatch, tmp_path
):
    monkeypatch.setattr(_decoding_processes, "ByteBudget", small_budget)
    Image.new("RGB", (400, 300), (9, 8, 7)).save(tmp_path / "large.png")
    source = make_image_source([*paths[:3], str(tmp_path / "large.png")])
    here, fitted = [], type(source).fitted

    def noted(source, i, *args):
        here.append(i)
        return fitted(source, i, *args)

    with DecodingProcesses(source, preprocessing) as processes:
        # After the fork, so in this process only.
        monkeypatch.setattr(type(source), "fitted", noted)
        found = processes.load([0, 1, 2, 3], ByteBudget())
    assert here == [3]
    assert (found[3] == [9, 8, 7]).all()


def small_budget(total=None, is_strict=False):
    return ByteBudget(100_000, is_strict)


def test_without_a_process_the_caller_decodes(paths, preprocessing, caplog):
    caplog.set_level(logging.WARNING)
    source = make_image_source(paths)
    with DecodingProcesses(source, preprocessing) as processes:
        for child in children():
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        found = processes.load([0, 1], ByteBudget())
        assert "was lost" in caplog.text
        again = processes.load([0, 1], ByteBudget())
    for i in (0, 1):
        expected = source.fitted(i, preprocessing)
        np.testing.assert_array_equal(found[i], expected)
        np.testing.assert_array_equal(again[i], expected)


class NotSent(os.PathLike):
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path

    def __reduce__(self):
        raise TypeError("cannot be pickled")


def test_what_cannot_be_sent_is_decoded_here(paths, preprocessing):
    found = load([NotSent(path) for path in paths], preprocessing)
    source = make_image_source(paths)
    for i, pixels in enumerate(found):
        np.testing.assert_array_equal(pixels, source.fitted(i, preprocessing))


def test_rows_are_the_same_and_errors_name_the_file(paths, monkeypatch):
    extractor = PretrainedFeatureExtractor(image_size=32, cache=None)
    expected = extractor.transform(paths)
    asked = []

    def always(source, kinds, n_images):
        asked.append((kinds, n_images))
        return True

    monkeypatch.setattr(_compute, "can_decode_in_processes", always)
    np.testing.assert_array_equal(extractor.transform(paths), expected)
    assert asked[-1] == ({"cpu"}, len(paths))
    os.remove(paths[6])
    with pytest.raises(BadImageError, match=r"06\.jpg"):
        extractor.transform(paths)
    assert not children()


def test_they_are_for_gpus_with_many_cores_and_images(paths, monkeypatch):
    source = make_image_source(paths)

    def can(kinds=frozenset({"cuda"}), n=10_000, source=source):
        return can_decode_in_processes(source, set(kinds), n)

    monkeypatch.setattr(_decoding_processes.joblib, "cpu_count", lambda: 16)
    assert can()
    assert not can({"cpu"})
    assert not can(n=100)
    assert not can(source=make_image_source(np.zeros((3, 8, 8, 3), np.uint8)))
    remote = make_image_source(["memory://a.png"], storage_options={})
    assert not can(source=remote)
    monkeypatch.setattr(_decoding_processes.joblib, "cpu_count", lambda: 2)
    assert not can()
