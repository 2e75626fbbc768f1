"""Models that other libraries store and load: MLflow and skops."""

import numpy as np
import pytest
from networks import fix_weights
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from torch import nn

from skdeepfeat import FineTuneClassifier, PretrainedFeatureExtractor

N = 8


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 200, (N, 32, 32, 3), dtype=np.uint8)
    pixels[::2, :, :, 0] += 55
    return pixels, np.where(np.arange(N) % 2, "green", "red")


class SmallNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2)
        self.head = nn.Linear(6, 4)
        fix_weights(self)

    def forward(self, x):
        return self.head(self.stem(x).relu().mean((2, 3)))


def make_pipeline_of_features():
    extractor = PretrainedFeatureExtractor(image_size=32, layer=1, cache=None)
    return make_pipeline(extractor, LogisticRegression())


def make_fine_tuned():
    return FineTuneClassifier(image_size=32, max_epochs=1, unfreeze=1, cache=None)


MODELS = {"pipeline": make_pipeline_of_features, "fine-tuned": make_fine_tuned}


def with_skops(model, folder):
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    path = folder / "model.skops"
    skops.dump(model, path)
    return skops.load(path, trusted=skops.get_untrusted_types(file=path))


def with_mlflow(model, folder, serialization_format="cloudpickle", **options):
    mlflow = pytest.importorskip(
        "mlflow.sklearn", reason="MLflow, a large package, is not installed"
    )
    path = str(folder / "model")
    mlflow.save_model(
        model, path, serialization_format=serialization_format,
        pip_requirements=["skdeepfeat"], **options,
    )  # fmt: skip
    return mlflow.load_model(path)


def with_mlflow_and_skops(model, folder):
    skops = pytest.importorskip("skops.io", reason="skops is not installed")
    trusted = skops.get_untrusted_types(data=skops.dumps(model))
    return with_mlflow(model, folder, "skops", skops_trusted_types=trusted)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # MLflow's own
@pytest.mark.parametrize("store", [with_skops, with_mlflow, with_mlflow_and_skops])
@pytest.mark.parametrize("kind", MODELS)
def test_round_trip(images, tmp_path, kind, store):
    X, y = images
    model = MODELS[kind]().fit(X, y)
    loaded = store(model, tmp_path)
    assert_allclose(loaded.predict_proba(X), model.predict_proba(X), rtol=1e-5)
    assert list(loaded.predict(X)) == list(model.predict(X))
