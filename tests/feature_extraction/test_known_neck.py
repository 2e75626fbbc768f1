"""A wrong note never becomes a wrong row of an image that is computed."""

import json
import logging

import numpy as np
import pytest

from skdeepfeat import FeatureCache, PretrainedFeatureExtractor
from skdeepfeat._utils._digests import digest_description
from skdeepfeat.feature_extraction import _known_neck
from skdeepfeat.networks import _remembered_neck, key_of_neck

NAME = "test_vit"


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch):
    """Recall notes although this process has imported the libraries."""
    monkeypatch.setattr(_known_neck, "libraries_are_imported", lambda: False)


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (4, 20, 20, 3), np.uint8)


def make(cache, **parameters):
    return PretrainedFeatureExtractor(
        NAME, weights="random", image_size=32, cache=cache, **parameters
    )


def write_note(cache, change=lambda neck: None, **parameters):
    """Write the note of an extractor, changed by a stranger."""
    described = {
        "layer": None, "pooling": "auto", "weights": "random", "image_size": 32,
        "preprocessing": None, "random_state": 0, **parameters,
    }  # fmt: skip
    key = key_of_neck(NAME, **described, cache_layers=None)
    neck = _remembered_neck.resolve_neck(NAME, **described)
    note = json.loads(_remembered_neck.note_of_neck(neck, key))
    change(note["neck"])
    cache.notes().write(digest_description(key), json.dumps(note).encode())


def test_a_recalled_neck_computes_what_is_missing(tmp_path, images):
    cache, expected = FeatureCache(tmp_path), make(None).transform(images)
    write_note(cache)
    with _known_neck.known_neck(
        cache, cache_layers=None, **make(cache)._neck_parameters()
    ) as neck:
        assert isinstance(neck, _remembered_neck.RememberedNeck)
    np.testing.assert_array_equal(make(cache).transform(images[:2]), expected[:2])
    np.testing.assert_array_equal(make(cache).transform(images), expected)


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
    cache.notes().clear()
    [namespace] = cache.info().namespaces
    assert namespace.n_rows == len(images)
    np.testing.assert_array_equal(make(cache, layer=layer).transform(images), expected)
    [again] = cache.info().namespaces
    assert again.key == namespace.key
