"""HTML of estimators in notebooks: cheap, linked and escaped, and it never raises."""

import importlib
import inspect
import pathlib
import pickle
import re
import tomllib

import numpy as np
import pytest
import sklearn
from networks import CountingNet
from sklearn.base import BaseEstimator
from sklearn.ensemble import StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.fixes import parse_version
from torch import nn

import skdeepfeat
from skdeepfeat import FeatureCache, FineTuneClassifier, PretrainedFeatureExtractor
from skdeepfeat._utils._html import DOCUMENTATION

API = pathlib.Path(__file__).parents[1] / "docs" / "api.rst"


def public_estimators():
    found = {}
    for name in ("", ".text"):
        module = importlib.import_module(f"skdeepfeat{name}")
        for each in module.__all__:
            cls = getattr(module, each)
            if inspect.isclass(cls) and issubclass(cls, BaseEstimator):
                found[f"skdeepfeat{name}.{each}"] = cls
    return found


ESTIMATORS = public_estimators()


class NeverUsed(nn.Module):
    """A network that fails if anybody looks into it."""

    def forward(self, x):
        raise AssertionError("the network ran")

    def named_modules(self, *args, **kwargs):
        raise AssertionError("the network was examined")


def make(cls, **parameters):
    required = [
        one.name
        for one in inspect.signature(cls).parameters.values()
        if one.default is one.empty
    ]
    return cls(**{**dict.fromkeys(required, NeverUsed()), **parameters})


@pytest.fixture
def no_network(monkeypatch):
    """Let every attempt to find a network fail."""

    def resolve(*args, **kwargs):
        raise AssertionError("a network was resolved")

    for name in ("_feature_extractor", "_torch_feature_extractor"):
        module = importlib.import_module(f"skdeepfeat.feature_extraction.{name}")
        if hasattr(module, "resolve_neck"):
            monkeypatch.setattr(module, "resolve_neck", resolve)
    monkeypatch.setattr(PretrainedFeatureExtractor, "_resolve_neck", resolve)
    monkeypatch.setattr(skdeepfeat.TorchFeatureExtractor, "_resolve_neck", resolve)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_unfitted(name, no_network):
    estimator = make(ESTIMATORS[name])
    assert ESTIMATORS[name].__name__ in estimator._repr_html_()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_link(name, monkeypatch):
    estimator = make(ESTIMATORS[name])
    page = f"/api/{name}.html"
    assert estimator._get_doc_link().endswith(page)
    monkeypatch.setenv("SKDEEPFEAT_DOCS", "file:///docs/{here}/'\">")
    link = estimator._get_doc_link()
    assert link == f"file:///docs/{{here}}/&#x27;&quot;&gt;{page}"
    assert link in estimator._repr_html_()
    package, _, cls = name.rpartition(".")
    listed = re.split(r"currentmodule:: (\S+)", API.read_text(encoding="utf-8"))
    pages = zip(listed[1::2], listed[2::2], strict=True)
    assert any(package == of and f"   {cls}\n" in text for of, text in pages)


def test_address_of_the_documentation():
    project = tomllib.loads((API.parents[1] / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["urls"]["Documentation"] == DOCUMENTATION


def test_subclasses_of_others_have_no_page():
    class Mine(PretrainedFeatureExtractor):
        pass

    assert Mine()._get_doc_link() == ""


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (12, 16, 16, 3), dtype=np.uint8), np.arange(12) % 2


def test_parameters_are_escaped(no_network):
    extractor = PretrainedFeatureExtractor(model="<b>", cache="<u>")
    text = make_pipeline(extractor, LogisticRegression())._repr_html_()
    assert "<b>&#" not in text and "<u>" not in text
    assert "&lt;b&gt;" in text and "&lt;u&gt;" in text


def test_fitted(images, tmp_path):
    X, y = images
    net = CountingNet(tmp_path / "log")
    extractor = PretrainedFeatureExtractor(net, image_size=16, cache=None)
    pipeline = make_pipeline(extractor, LogisticRegression()).fit(X, y)
    stack = StackingClassifier([("a", pipeline)], cv=2).fit(X, y)
    tuned = FineTuneClassifier(net, image_size=16, max_epochs=1, cache=None).fit(X, y)
    for fitted in (pipeline, stack, tuned, pickle.loads(pickle.dumps(pipeline))):
        n_before = (tmp_path / "log").stat().st_size
        assert type(fitted).__name__ in fitted._repr_html_()
        assert (tmp_path / "log").stat().st_size == n_before
    # Older versions show parameters only.
    if parse_version(sklearn.__version__) >= parse_version("1.9"):
        assert "layers_" in extractor._repr_html_()
    # Outside of the HTML they are there.
    assert extractor.n_features_out_ == len(extractor.get_feature_names_out()) == 8


def test_table_of_a_cache(images, tmp_path):
    cache = FeatureCache(tmp_path / "<u>")
    assert "<u>" not in cache.info()._repr_html_()
    net = CountingNet(tmp_path / "log")
    extractor = PretrainedFeatureExtractor(net, image_size=16, cache=cache)
    extractor.transform(images[0])
    text = cache.info()._repr_html_()
    for wanted in ("countingnet_neck, float32", "<td>12</td>", "&lt;u&gt;"):
        assert wanted in text
    assert "no cache" in type(cache.info())(None)._repr_html_()
