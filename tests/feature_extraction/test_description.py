"""`describe`: what an extractor is, what it costs, and what is in the cache."""

import html

import numpy as np
import pytest
import torch
from networks import CountingNet, SmallNet, rows_counted
from sklearn.exceptions import NotFittedError

from skdeepfeat import (
    BadImageError,
    FineTuneClassifier,
    PretrainedFeatureExtractor,
    SelfSupervisedExtractor,
    TorchFeatureExtractor,
    list_layers,
)

N = 10


@pytest.fixture
def pixels():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 20, 24, 3), dtype=np.uint8)


def make_extractor(folder, **parameters):
    defaults = {"image_size": 16, "runtime": "torch", "cache": folder / "cache"}
    return PretrainedFeatureExtractor(
        CountingNet(folder / "log"), **{**defaults, **parameters}
    )


def test_hits_are_counted(tmp_path, pixels):
    extractor = make_extractor(tmp_path)
    assert extractor.describe(pixels, measure=False).n_hits == 0
    extractor.transform(pixels[:4])
    n_computed = rows_counted(tmp_path / "log")
    repeated = np.concatenate([pixels, pixels[:2]])
    found = extractor.describe(repeated, measure=False)
    assert (found.n_images, found.n_hits, found.n_cached) == (N + 2, 6, 4)
    assert rows_counted(tmp_path / "log") == n_computed
    assert "6 of 12 images are in the cache" in str(found)


def test_several_layers(tmp_path, pixels):
    extractor = make_extractor(tmp_path, layer="conv").fit(pixels)
    extractor.transform(pixels[:6])
    extractor.set_params(layer=["conv", "neck"]).transform(pixels[:2])
    found = extractor.describe(pixels, measure=False)
    assert found.layers == ("conv", "neck")
    assert (found.n_hits, found.n_cached) == (2, 2)
    assert found.n_features == extractor.fit(pixels).n_features_out_


def test_what_it_says_of_the_network():
    extractor = PretrainedFeatureExtractor(image_size=64, layer=1, cache=None)
    found = extractor.describe(measure=False)
    layers = list_layers(image_size=64).set_index("name")
    assert found.n_parameters == layers.loc["output", "n_parameters"]
    assert found.layers == (layers.index[layers["stage"] == 1][0],)
    assert found.image_size == (64, 64)
    assert found.device == "cpu" or "cuda" in found.device
    assert (found.cache, found.n_images, found.seconds_per_image) == (None,) * 3
    assert "none" in found._repr_html_()


@pytest.mark.parametrize("flat", [None, (20, 24, 3)])
def test_time(tmp_path, pixels, flat):
    extractor = make_extractor(tmp_path, cache=None, flat_image_shape=flat)
    assert extractor.describe().seconds_per_image > 0
    X = pixels if flat is None else pixels.reshape(N, -1)
    found = extractor.describe(X)
    assert found.seconds_per_image > 0
    assert "the rest take" in str(found)


def test_broken_images(tmp_path, pixels):
    X = [*pixels, tmp_path / "gone.png"]
    extractor = make_extractor(tmp_path)
    with pytest.raises(BadImageError):
        extractor.describe(X)
    found = extractor.set_params(on_error="nan").describe(X, measure=False)
    assert (found.n_images, found.n_hits) == (N + 1, 0)


def test_what_users_name_is_escaped(tmp_path):
    folder = tmp_path / "<b onclick='x'>&"
    folder.mkdir()
    text = make_extractor(folder).describe(measure=False)._repr_html_()
    assert "<b" not in text
    assert html.escape("<b onclick='x'>&") in text


@pytest.mark.parametrize(
    "unfreeze, trained, weights",
    [("all", "the head and all stages; epochs: 1", "as trained"),
     (1, "the head and unfreeze=1; epochs: 1", "as trained"),
     (None, "the head", "of the module")],
)  # fmt: skip
def test_tuned_estimators(tmp_path, pixels, unfreeze, trained, weights):
    estimator = FineTuneClassifier(
        SmallNet(), unfreeze=unfreeze, max_epochs=1, image_size=16, cache=tmp_path / "c"
    )
    with pytest.raises(NotFittedError):
        estimator.describe()
    found = estimator.fit(pixels, np.arange(N) % 2).describe(pixels, measure=False)
    assert (found.training, found.weights) == (trained, weights)
    assert found.image_size == (16, 16)
    assert found.n_parameters == sum(p.numel() for p in SmallNet().parameters())
    assert found.estimator in found._repr_html_()
    assert trained in str(found)


@pytest.mark.filterwarnings("ignore:The embeddings have begun to collapse")
def test_self_supervised(pixels):
    estimator = SelfSupervisedExtractor(
        SmallNet(), max_epochs=1, image_size=16, cache=None
    )
    found = estimator.fit(pixels).describe(pixels)
    assert found.training.startswith("vicreg")
    assert found.seconds_per_image > 0


def test_items(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh())
    extractor = TorchFeatureExtractor(
        module, lambda items: torch.tensor(np.stack(items)), cache=tmp_path / "c"
    )
    rows = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    with pytest.raises(NotFittedError):
        extractor.describe()
    extractor.fit(rows).transform(rows[:5])
    found = extractor.describe(rows)
    assert (found.n_images, found.n_hits, found.image_size) == (9, 5, None)
    assert found.n_parameters == 15
    assert "5 of 9 items" in str(found)
    assert "ms per item" in str(extractor.describe())
