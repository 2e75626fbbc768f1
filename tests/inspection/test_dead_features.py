"""Features that are never active or constant, and filters."""

import numpy as np
import pytest
import torch
from networks import CountingStages, rows_counted
from numpy.testing import assert_allclose, assert_array_equal
from relu_networks import PREPROCESSING, ReluNet, make_extractor, tiny_transformer
from torch import nn

from skdeepfeat import BadImageWarning, FineTuneClassifier, PretrainedFeatureExtractor
from skdeepfeat.inspection import dead_features, first_filters


def test_units_that_are_dead_or_constant(planted):
    network = ReluNet()
    with torch.no_grad():
        network.conv3.bias[2] = -1e4
        network.conv3.weight[5] = 0
        network.conv3.bias[5] = 3.0
    extractor = make_extractor(network)
    found = dead_features(extractor, planted[0])
    rows = extractor.transform(planted[0])
    assert_array_equal(found.index, extractor.get_feature_names_out())
    assert_array_equal(found["never_active"], rows.max(0) <= 0)
    assert found["never_active"].iloc[2]
    assert_array_equal(np.flatnonzero(found["constant"] & ~found["never_active"]), [5])
    assert found["constant"].iloc[2]
    assert_allclose(found["largest"], rows.max(0))
    assert_allclose(found["std"], rows.std(0), rtol=1e-4, atol=1e-5)
    assert_allclose(found["share_active"], (rows > 0).mean(0))


def test_they_come_from_the_cache(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    log = tmp_path / "log"
    extractor = PretrainedFeatureExtractor(
        CountingStages(log), image_size=32, cache=tmp_path / "cache"
    )
    extractor.transform(images)
    before = rows_counted(log)
    dead_features(extractor, images)
    assert rows_counted(log) == before


def test_broken_images_are_left_out(planted, tmp_path):
    extractor = make_extractor(on_error="nan").set_output(transform="pandas")
    mixed = [*planted[0][:5], str(tmp_path / "missing.jpg")]
    with pytest.warns(BadImageWarning):
        found = dead_features(extractor, mixed)
    expected = dead_features(make_extractor(), planted[0][:5])
    assert_array_equal(found.to_numpy(), expected.to_numpy())
    with (
        pytest.warns(BadImageWarning),
        pytest.raises(ValueError, match="^X must have at least 2 images"),
    ):
        dead_features(extractor, mixed[4:])
    with pytest.raises(TypeError, match="^The 'extractor' .* Got 'efficientnet_lite0'"):
        dead_features("efficientnet_lite0", mixed)


# Filters


def test_filters_act_on_pixels(planted):
    network = ReluNet()
    filters = first_filters(make_extractor(network))
    assert filters.shape == (6, 3, 3, 3)
    expected = network.conv1.weight.detach().numpy().transpose(0, 2, 3, 1)
    assert_allclose(filters * PREPROCESSING["std"], expected, rtol=1e-6)
    clf = FineTuneClassifier(
        network, preprocessing=PREPROCESSING, unfreeze=None, cache=None
    ).fit(planted[0], planted[1])
    assert_array_equal(first_filters(clf), filters)


def test_patches_of_transformers_are_filters():
    assert first_filters(make_extractor(tiny_transformer())).shape == (12, 4, 4, 3)


def test_networks_without_filters():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3 * 16 * 16, 4)

        def forward(self, x):
            return self.linear(x.flatten(1))

    with pytest.raises(ValueError, match="^The 'estimator' parameter"):
        first_filters(make_extractor(Flat()))
