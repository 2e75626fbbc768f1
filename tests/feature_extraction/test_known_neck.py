"""A wrong note never becomes a wrong row of an image that is computed."""

import dataclasses
import json
import logging

import numpy as np
import pytest
from PIL import Image

from skdeepfeat import FeatureCache, PretrainedFeatureExtractor
from skdeepfeat._utils._digests import digest_description
from skdeepfeat.images import _files, _list_source
from skdeepfeat.networks import _remembered_neck

NAME = "test_vit"


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch):
    """Recall notes although this process has imported the libraries."""
    monkeypatch.setattr(_remembered_neck, "libraries_are_imported", lambda: False)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (4, 20, 20, 3), np.uint8)


def make(cache, **parameters):
    return PretrainedFeatureExtractor(
        NAME, weights="random", image_size=32, cache=cache, **parameters
    )


def write_note(cache, change=lambda neck: None, cache_layers=None, **parameters):
    """Write the note of an extractor, changed by a stranger."""
    described = {
        "layer": None, "pooling": "auto", "weights": "random", "image_size": 32,
        "preprocessing": None, "random_state": 0, **parameters,
    }  # fmt: skip
    key = _remembered_neck.key_of_neck(NAME, **described, cache_layers=cache_layers)
    neck = _remembered_neck.resolve_neck(NAME, **described)
    note = json.loads(_remembered_neck.note_of_neck(neck, key))
    change(note["neck"])
    cache.open().notes.write(digest_description(key), json.dumps(note).encode())


def test_a_recalled_neck_computes_what_is_missing(tmp_path, images):
    cache, expected = FeatureCache(tmp_path), make(None).transform(images)
    write_note(cache)
    with make(cache)._described_neck() as neck:
        assert isinstance(neck, _remembered_neck.RememberedNeck)
    np.testing.assert_array_equal(make(cache).transform(images[:2]), expected[:2])
    np.testing.assert_array_equal(make(cache).transform(images), expected)


def test_features_of_an_embedded_network_need_no_note(tmp_path, images, monkeypatch):
    # Whether the packages are still the same costs a hundred times as much as a row.
    def asked():
        raise AssertionError("the packages' files were looked at")

    cache = FeatureCache(tmp_path)
    rows = PretrainedFeatureExtractor(image_size=32, cache=cache).fit_transform(images)
    monkeypatch.setattr(_remembered_neck, "installed_code", asked)
    again = PretrainedFeatureExtractor(image_size=32, cache=cache)
    np.testing.assert_array_equal(again.fit_transform(images), rows)
    with pytest.raises(AssertionError, match="looked at"):
        again.get_feature_names_out()


@pytest.mark.parametrize("size", ["preprocessing", "outputs"])
def test_a_wrong_note_is_noticed(size, tmp_path, images, caplog):
    def change(neck):
        if size == "preprocessing":
            neck["preprocessing"]["mean"] = [0.1, 0.2, 0.3]
        else:
            neck["outputs"][0]["layer"] = "blocks.0"
            neck["outputs"][0]["n_features"] = 7

    cache, layer = FeatureCache(tmp_path), "blocks.1"
    expected = make(None, layer=layer).transform(images)
    write_note(cache, change, layer=layer)
    with caplog.at_level(logging.WARNING):
        rows = make(cache, layer=layer).transform(images)
    np.testing.assert_array_equal(rows, expected)
    assert "was wrong" in caplog.text
    # They are stored as what they are.
    cache.open().notes.clear()
    [namespace] = cache.info().namespaces
    assert namespace.n_rows == len(images)
    np.testing.assert_array_equal(make(cache, layer=layer).transform(images), expected)
    [again] = cache.info().namespaces
    assert again.key == namespace.key


@pytest.mark.parametrize("cache_layers", ["stages", ["blocks.0"]])
def test_a_recalled_neck_computes_more_layers(cache_layers, tmp_path, images):
    # A network that is not in memory yet, or none would have to be built.
    cache, own = FeatureCache(tmp_path), {"random_state": len(cache_layers)}
    write_note(cache, cache_layers=cache_layers, **own)
    extractor = make(cache, cache_layers=cache_layers, **own).fit(images)
    rows = extractor.transform(images)
    np.testing.assert_array_equal(rows, make(None, **own).transform(images))
    assert len(cache.info().namespaces) > 1


@pytest.mark.parametrize("what", ["preprocessing", "layer"])
def test_a_wrong_note_is_noticed_in_a_later_part(what, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_list_source, "_FIRST_SECONDS", 0)
    monkeypatch.setattr(_files, "_LEAST_IN_PART", 1)
    monkeypatch.setattr(_files, "_KEPT_AT_ONCE", 1)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)

    asked = make(None, layer="blocks.1").fit(paths)
    if what == "preprocessing":
        mean = (0.1, 0.2, 0.3)
        own = dataclasses.replace(asked.preprocessing_, mean=mean)
        other = {"layer": "blocks.1", "preprocessing": own}
    else:
        other = {"layer": "output"}

    def change(neck):
        if what == "preprocessing":
            neck["preprocessing"]["mean"] = list(mean)
        else:
            [output] = make(None, **other)._resolve_neck().outputs
            neck["outputs"] = [dataclasses.asdict(output)]

    cache, expected = FeatureCache(tmp_path / "rows"), asked.transform(paths)
    # Known rows of the first image, which is not a known file.
    make(cache, **other).transform([paths[0].read_bytes()])
    write_note(cache, change, layer="blocks.1")
    with caplog.at_level(logging.WARNING):
        rows = make(cache, layer="blocks.1").transform(paths)
    assert "was wrong" in caplog.text
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
