"""An image that changes between its digest and its pixels has no features."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from skdeepfeat import FeatureCache, FineTuneClassifier, PretrainedFeatureExtractor
from skdeepfeat._utils._preprocessing import Preprocessing
from skdeepfeat.exceptions import BadImageError
from skdeepfeat.fine_tuning import _body_phase
from skdeepfeat.images import _array_source, _list_source, make_image_source

N = 4
CROP = Preprocessing(8, (8, 8))


def frames():
    return np.random.default_rng(0).integers(0, 256, (N, 10, 12, 3), np.uint8)


def memory_map(array, folder):
    path = folder / "frames.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r+")


def encoded(encode):
    return [encode(one) for one in frames()]


# Each returns X, and a function that changes its image 2.
def change_array(array, i=2):
    array[i] = 255 - array[i]


def image_list(kind):
    images = [Image.fromarray(one).convert(kind) for one in frames()]
    return images, lambda: images[2].putpixel((0, 0), 1 if kind != "RGB" else (1, 2, 3))


def make(kind, folder, encode):
    array = frames()
    if kind == "stack":
        return array, lambda: change_array(array)
    if kind == "floats":
        array = array / 255
        return array, lambda: array.__setitem__(2, 1 - array[2])
    if kind == "list of arrays":
        return list(array), lambda: change_array(array)
    if kind == "memory map":
        mapped = memory_map(array, folder)
        return mapped, lambda: change_array(mapped)
    if kind == "tensor":
        tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
        return tensor, lambda: change_array(array)
    if kind == "list of tensors":
        tensors = list(torch.from_numpy(array).permute(0, 3, 1, 2))
        return tensors, lambda: change_array(array)
    if kind in ("RGB", "L", "P"):
        return image_list(kind)
    files = [bytearray(one) for one in encoded(encode)]
    X = files if kind == "bytearray" else [memoryview(one) for one in files]
    # Behind the pixels, so that it is decoded all the same.
    return X, lambda: files[2].__setitem__(slice(-2, None), b"ab")


KINDS = [
    "stack",
    "floats",
    "list of arrays",
    "memory map",
    "tensor",
    "list of tensors",
    "RGB",
    "L",
    "P",
    "bytearray",
    "memoryview",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_image_is_a_bad_image(kind, tmp_path, encode):
    X, change = make(kind, tmp_path, encode)
    source = make_image_source(X)
    source.digests()
    change()
    part = source.part(np.array([1, 2]))
    part = pickle.loads(pickle.dumps(part))
    for read in (source.pixels, lambda i: source.fitted(i, CROP)):
        with pytest.raises(BadImageError, match="changed while it was") as caught:
            read(2)
        assert caught.value.index == 2
        for row in (0, 1, 3):
            read(row)
    part.pixels(0)
    with pytest.raises(BadImageError, match="changed while it was being read"):
        part.pixels(1)


@pytest.mark.parametrize(
    ("kind", "module", "digest"),
    [
        ("stack", _array_source, "digest_pixels"),
        ("memory map", _array_source, "digest_pixels"),
        ("tensor", _array_source, "digest_pixels"),
        ("list of arrays", _list_source, "digest_pixels"),
        ("list of tensors", _list_source, "digest_pixels"),
        ("RGB", _list_source, "digest_pixels"),
        ("bytearray", _list_source, "digest_bytes"),
    ],
)
def test_a_change_after_the_check_is_not_seen(
    kind, module, digest, tmp_path, encode, monkeypatch
):
    X, change = make(kind, tmp_path, encode)
    source = make_image_source(X)
    source.digests()
    expected = source.fitted(2, CROP)
    original = getattr(module, digest)

    def check_and_change(content):
        result = original(content)
        change()
        return result

    monkeypatch.setattr(module, digest, check_and_change)
    np.testing.assert_array_equal(source.fitted(2, CROP), expected)


def test_digests_of_another_source_can_be_expected(tmp_path, encode):
    for kind in ("stack", "list of arrays"):
        X, change = make(kind, tmp_path, encode)
        digests, _ = make_image_source(X).digests()
        source = make_image_source(X)
        source.expect(digests)
        source.pixels(2)
        change()
        with pytest.raises(BadImageError, match="changed while it was being read"):
            source.pixels(2)


@pytest.mark.parametrize("kind", ["stack", "list of tensors", "RGB", "bytearray"])
def test_the_cache_is_not_poisoned(kind, tmp_path, encode, monkeypatch):
    """X changes at the worst moment: digests are known, nothing is decoded yet."""
    from skdeepfeat.feature_extraction import _extraction

    X, change = make(kind, tmp_path, encode)
    cache = FeatureCache(tmp_path / "cache")
    extractor = PretrainedFeatureExtractor(image_size=32, cache=cache, on_error="nan")
    compute = _extraction.compute_features

    def change_and_compute(*args, **kwargs):
        change()
        return compute(*args, **kwargs)

    monkeypatch.setattr(_extraction, "compute_features", change_and_compute)
    with pytest.warns(UserWarning, match="changed while it was being read"):
        rows = extractor.fit_transform(X)
    assert np.isnan(rows).any(axis=1).tolist() == [False, False, True, False]
    monkeypatch.undo()
    again = extractor.fit_transform(X)
    plain = PretrainedFeatureExtractor(image_size=32, cache=None).fit_transform(X)
    np.testing.assert_allclose(again, plain, rtol=1e-4, atol=1e-5)


def test_both_phases_of_fine_tuning_see_the_same_images(monkeypatch):
    X, y = list(frames()), [0, 1, 0, 1]
    load = _body_phase.load_pixels

    def change_and_load(*args, **kwargs):
        X[2][:] = 255 - X[2]
        return load(*args, **kwargs)

    monkeypatch.setattr(_body_phase, "load_pixels", change_and_load)
    classifier = FineTuneClassifier(image_size=32, max_epochs=1, cache=None)
    with pytest.raises(BadImageError, match="index 2.*changed while it was being read"):
        classifier.fit(X, y)
