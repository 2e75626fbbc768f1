"""Patches lie where they must, by arithmetic on paper and by planted squares."""

import numpy as np
import pytest
import timm
import torch
from networks import CountingStages, rows_counted
from numpy.testing import assert_allclose, assert_array_equal
from relu_networks import (
    PREPROCESSING,
    SIZE,
    KnownFields,
    ReluNet,
    make_extractor,
    tiny_transformer,
)
from torch import nn

from skdeepfeat import BadImageError, BadImageWarning, PretrainedFeatureExtractor
from skdeepfeat.inspection import top_patches
from skdeepfeat.inspection._units import Unit, receptive_fields
from skdeepfeat.networks import resolve_neck


def neck_of(network, size):
    preprocessing = {**PREPROCESSING, "resize": (size, size), "crop": (size, size)}
    return resolve_neck(network, preprocessing=preprocessing)


# Receptive fields


def test_the_fields_of_a_network_known_on_paper():
    neck = neck_of(KnownFields(), 33)
    for layer, side, step in [("first", 3, 2), ("pool", 5, 4), ("second", 13, 4)]:
        n = neck.at_layer(layer).outputs[0].source.shape[1]
        places = [(0, 0), (1, n - 1), (n // 2, 1)]
        expected = [
            (step * row, step * column, step * row + side, step * column + side)
            for row, column in places
        ]
        assert receptive_fields(Unit(neck, layer, 2), places) == expected


def test_fields_end_at_the_edge_of_the_image():
    unit = Unit(neck_of(ReluNet(), SIZE), "conv2", 0)
    # Two convolutions of 3, of which one comes behind a pooling of 2.
    fields = receptive_fields(unit, [(0, 0), (4, 4), (7, 3)])
    assert fields == [(0, 0, 5, 5), (5, 5, 13, 13), (11, 3, 16, 11)]


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_fields_of_max_pools_are_their_whole_windows(dilation, padding, ceil_mode):
    pool = nn.MaxPool2d(3, 2, padding, dilation, ceil_mode=ceil_mode)
    neck = neck_of(nn.Sequential(nn.Conv2d(3, 2, 1), pool), 14)
    n = neck.at_layer("1").outputs[0].source.shape[1]
    reach = 2 * dilation
    for row in range(n):
        taken = [2 * row - padding + step * dilation for step in range(3)]
        inside = [one for one in taken if 0 <= one < 14]
        [field] = receptive_fields(Unit(neck, "1", 0), [(row, row)])
        assert field == (min(inside), min(inside), max(inside) + 1, max(inside) + 1)
        assert field[2] - field[0] <= reach + 1


def test_dead_units_and_other_activations_have_fields():
    network = ReluNet(activation=nn.Hardswish)
    with torch.no_grad():
        network.conv1.bias.fill_(-1e3)  # nothing passes
    assert receptive_fields(Unit(neck_of(network, SIZE), "conv2", 0), [(4, 4)]) == [
        (5, 5, 13, 13)
    ]


def test_attention_and_gates_see_the_whole_image():
    unit = Unit(neck_of(tiny_transformer(), SIZE), "blocks.0", 1)
    assert receptive_fields(unit, [(0, 3)]) == [(0, 0, SIZE, SIZE)]
    unit = Unit(neck_of(tiny_transformer(), SIZE), "patch_embed.proj", 1)
    assert receptive_fields(unit, [(1, 2)]) == [(4, 8, 8, 12)]
    gated = timm.create_model("regnety_002", pretrained=False)
    assert receptive_fields(Unit(neck_of(gated, 64), "s1", 0), [(3, 3)]) == [
        (0, 0, 64, 64)
    ]


# Top patches


class Brightness(nn.Module):
    """Unit 1 of `second` is the mean of 4 x 4 pixels, every 4 pixels."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 1, 2, stride=2)
        self.second = nn.Conv2d(1, 2, 2, stride=2)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(0.25)

    def forward(self, x):
        return self.second(self.first(x)).mean((2, 3))


def test_planted_squares_are_found_in_order():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 50, (12, SIZE, SIZE, 3), dtype=np.uint8)
    for i, (row, column) in enumerate([(0, 0), (2, 1), (3, 3), (1, 2)]):
        images[i + 5, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 255 - 40 * i
    extractor = make_extractor(Brightness())
    found = top_patches(extractor, images, "second", 1, k=4)
    assert_array_equal(found.indices, [5, 6, 7, 8])
    assert_array_equal(found.positions, [(0, 0), (2, 1), (3, 3), (1, 2)])
    assert_array_equal(found.boxes[1], (8, 4, 12, 8))
    assert [patch.shape for patch in found.patches] == [(4, 4, 3)] * 4
    assert [set(np.unique(patch)) for patch in found.patches] == [
        {255}, {215}, {175}, {135},
    ]  # fmt: skip
    assert (np.diff(found.activations) < 0).all()
    assert_array_equal(found.images, images[5:9])
    largest = make_extractor(Brightness(), layer="second", pooling="max")
    assert_allclose(found.activations, largest.transform(images)[5:9, 1])
    assert len(top_patches(extractor, images, "second", 1, k=99).indices) == 12


def test_activations_come_from_the_cache(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    log = tmp_path / "log"
    extractor = PretrainedFeatureExtractor(
        CountingStages(log), image_size=32, cache=tmp_path / "cache"
    )
    top_patches(extractor, images, "layer2", 1, k=3)
    first = rows_counted(log)
    top_patches(extractor, images, "layer2", 4, k=3)
    # The three images, and the one whose connections are followed.
    assert first >= 30
    assert rows_counted(log) - first < 10


def test_units_without_positions_see_the_whole_image(planted):
    found = top_patches(make_extractor(), planted[0], "neck", 3, k=2)
    assert_array_equal(found.boxes, [(0, 0, SIZE, SIZE)] * 2)
    assert_array_equal(found.positions, [(0, 0)] * 2)
    assert_array_equal(found.patches[0], planted[0][found.indices[0]])


def test_broken_images_are_left_out(planted, tmp_path):
    mixed = [planted[0][0], str(tmp_path / "missing.jpg"), planted[0][1]]
    extractor = make_extractor()
    with pytest.raises(BadImageError, match="index 1"):
        top_patches(extractor, mixed, "conv2", 0)
    extractor.set_params(on_error="nan")
    with pytest.warns(BadImageWarning):
        found = top_patches(extractor, mixed, "conv2", 0)
    assert set(found.indices) == {0, 2}
    with (
        pytest.warns(BadImageWarning),
        pytest.raises(ValueError, match="^X must have at least one image"),
    ):
        top_patches(extractor, mixed[1:2], "conv2", 0)


@pytest.mark.parametrize("k", [0, 1.5, True, "all"])
def test_what_cannot_be(planted, k):
    with pytest.raises(ValueError, match="^The 'k' parameter"):
        top_patches(make_extractor(), planted[0], "conv2", 0, k=k)
    with pytest.raises(ValueError, match="^The 'feature' parameter"):
        top_patches(make_extractor(), planted[0], "conv2", 8)
