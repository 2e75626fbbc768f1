"""Memory that fitted estimators keep, of which a search has many."""

import gc

import numpy as np
import pytest
import torch
from networks import CountingNet
from torch import nn

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)


def tensors():
    """Return the ids of all tensors that are alive."""
    # Asked for its class alone: isinstance would wake torch's deprecated objects.
    return {id(one) for one in gc.get_objects() if issubclass(type(one), torch.Tensor)}


@pytest.fixture
def no_collector():
    """Let reference counts alone free memory, as between two folds."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.slow
def test_a_fitted_extractor_holds_neither_rows_nor_networks(images, no_collector):
    extractor = PretrainedFeatureExtractor(image_size=16)
    extractor.fit_transform(images)
    before = tensors()
    fitted = [PretrainedFeatureExtractor(image_size=16, cache=None) for _ in range(2)]
    for one in fitted:
        one.fit_transform(images)
        fitted_attributes = {"n_features_in_", "preprocessing_", "layers_", "device_"}
        assert set(vars(one)) == {*one.get_params(), *fitted_attributes}
    assert len(tensors() - before) == 0


def test_a_user_s_network_is_not_copied_for_good(images, tmp_path, no_collector):
    net = CountingNet(tmp_path / "log")
    extractor = PretrainedFeatureExtractor(net, image_size=16)
    before = tensors()
    extractor.fit_transform(images)
    assert len(tensors() - before) == 0


@pytest.mark.slow
def test_a_tuned_classifier_holds_its_weights_and_no_gradients(
    images, tmp_path, no_collector
):
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 2),
    )  # fmt: skip
    before = tensors()
    fitted = FineTuneClassifier(net, image_size=16, max_epochs=2, random_state=0)
    fitted.fit(images, np.arange(12) % 2)
    own = [fitted.head_, fitted.body_]
    kept = [one for m in own for one in (*m.parameters(), *m.buffers())]
    assert all(one.grad is None for one in kept)
    assert len(tensors() - before) <= len(kept)
