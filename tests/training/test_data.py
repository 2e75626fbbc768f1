"""What a step reads."""

import numpy as np
import pytest
import torch

from skdeepfeat.training import FeatureData, PixelData


def test_features_by_row(make_features):
    data = make_features(n=7)
    rows = np.array([5, 0, 5])
    found = data.batch(rows, None, np.arange(3), 3)
    assert len(data) == 7
    assert torch.equal(found, data.inputs[[5, 0, 5]])


def test_features_in_another_order_in_memory():
    inputs = np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))[::-1]
    data = FeatureData(inputs, torch.zeros(4), torch.ones(4))
    np.testing.assert_array_equal(data.batch(np.array([0]), None, None, 1), inputs[:1])


def test_pixels_by_row(make_pixels):
    data = make_pixels(n=7, augment=None)
    rows = np.array([5, 0])
    found = data.batch(rows, np.random.default_rng(0), np.arange(2), 2)
    assert len(data) == 7
    wanted = data.pixels[[5, 0], 1:9, 1:9]
    np.testing.assert_array_equal(found.permute(0, 2, 3, 1), wanted)


def test_parts_of_a_batch_make_the_whole(make_pixels):
    data, rows = make_pixels(n=9), np.array([8, 2, 4, 1, 0])
    whole = data.batch(rows, np.random.default_rng(1), np.arange(5), 5)
    for positions in (np.array([0, 2, 4]), np.array([1, 3])):
        part = data.batch(rows[positions], np.random.default_rng(1), positions, 5)
        assert torch.equal(part, whole[positions])


def test_some_pixels_of_a_stack(make_pixels):
    whole = make_pixels(n=7, augment=None)
    kept = np.array([1, 4, 6])
    part = PixelData(
        whole.pixels, whole.targets[kept], whole.weights[kept], whole.augment, kept
    )
    assert len(part) == 3
    found = part.batch(np.array([2, 0]), None, np.arange(2), 2)
    assert torch.equal(found, whole.batch(np.array([6, 1]), None, np.arange(2), 2))


@pytest.mark.parametrize("kind", ["flip_crop", "trivial"])
def test_views_that_come_again(make_pixels, kind):
    """They depend on the image and the epoch, not on the batch or its generator."""
    one = make_pixels(n=7, augment=kind)
    data = PixelData(one.pixels, one.targets, one.weights, one.augment, n_views=2)
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    epochs = []
    for epoch in range(3):
        data.begin(epoch)
        rows = np.arange(7)
        parts = [rows[::2], rows[1::2], rows[:0]]  # the last process has no image
        whole = data.batch(rows, rng, rows, 7)
        found = [data.batch(part, rng, part, 7) for part in parts]
        assert torch.equal(found[0], whole[::2])
        assert torch.equal(found[1], whole[1::2])
        assert found[2].shape == (0, *whole.shape[1:])
        epochs.append(whole)
    assert rng.bit_generator.state == state
    assert torch.equal(epochs[0], epochs[2])
    assert not torch.equal(epochs[0], epochs[1])
