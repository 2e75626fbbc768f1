"""Values in messages are cut, whatever they are."""

import inspect

import numpy as np
import pytest
import torch
from sklearn.utils._param_validation import InvalidParameterError

import skdeepfeat
from skdeepfeat import (
    Autoencoder,
    ConvAutoencoder,
    FeatureCache,
    FineTuneClassifier,
    PretrainedFeatureExtractor,
    TransferAdvisor,
    check_can_learn,
    compression,
)
from skdeepfeat import (
    inspection as inspection_package,
)
from skdeepfeat._utils._shown import rounded, shown, shown_path
from skdeepfeat.text import SentenceEncoder, Word2Vec, WordVectorFeatures


class Unshowable:
    def __repr__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "value",
    ["a", b"a", 1, None, [1, "b"], {"a": (1, 2)}, {1}, "x" * 78, list(range(20))],
)
def test_short_values_are_shown_as_they_are(value):
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value",
    [
        "a" * 10**6,
        b"a" * 10**6,
        list(range(10**6)),
        {i: "a" * 1000 for i in range(1000)},
        [[["a" * 100] * 100] * 100] * 100,
        np.zeros((1000, 1000)),
        torch.nn.Sequential(*[torch.nn.ReLU() for _ in range(100)]),
        Unshowable(),
        10**1000,
        "line\n" * 100,
    ],
)
def test_no_value_is_shown_longer(value):
    text = shown(value)
    assert len(text) <= 80
    assert "\n" not in text


def test_paths_are_shown_whole_if_they_can_be_paths():
    assert shown_path("/a/b c/d.jpg") == "/a/b c/d.jpg"
    assert shown_path("/a" * 100) == "/a" * 100
    assert len(shown_path("/a" * 1000)) == 80
    assert shown_path("a\x1b[31m.jpg\n") == "'a\\x1b[31m.jpg\\n'"
    assert shown_path("\udcff.jpg").isprintable()


LONG = {"tensor": torch.zeros(1000, 1000), **{str(i): i for i in range(10000)}}


@pytest.mark.parametrize(
    "parameters",
    [
        {"weights": LONG},
        {"model": LONG},
        {"model": "m" * 10**5},
        {"layer": LONG},
        {"layer": "l" * 10**5},
        {"preprocessing": LONG},
        {"image_size": [1] * 10**5},
        {"batch_size": LONG},
        {"pooling": "p" * 10**5},
    ],
)
@pytest.mark.parametrize("estimator", [PretrainedFeatureExtractor, FineTuneClassifier])
def test_errors_about_parameters_are_short(estimator, parameters):
    [name] = parameters
    if name not in estimator().get_params():
        return
    with pytest.raises((ValueError, TypeError), match=name) as caught:
        estimator(**parameters).fit(np.zeros((2, 8, 8, 3), np.uint8), [0, 1])
    assert len(str(caught.value)) < 500


def test_a_wrong_parameter_shows_no_password():
    extractor = PretrainedFeatureExtractor(storage_options=[("key", "HUSH")])
    with pytest.raises(ValueError, match="storage_options.*type list") as caught:
        extractor.fit(["a.jpg"])
    assert "HUSH" not in str(caught.value)


@pytest.mark.parametrize("show", [shown, shown_path])
@pytest.mark.parametrize("n", [0, 40, 70, 300])
def test_secrets_of_addresses_are_hidden_even_where_they_are_cut(show, n):
    address = f"https://{'u' * n}:hunter2@host/a.pth?token=hunter2"
    assert "hunter" not in show(address)
    assert "host/a.pth" in show("https://me:hunter2@host/a.pth")


def test_secrets_of_addresses_in_containers():
    assert "hunter" not in shown(["https://me:hunter2@host/a?sig=hunter2", 1])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2330.95, "2,330"),
        (999.6, "1,000"),
        (12_345_678, "12,300,000"),
        (17.25, "17.2"),
        (0.001234, "0.00123"),
        (0, "0"),
    ],
)
def test_numbers_are_rounded_without_an_exponent(value, text):
    assert rounded(value) == text


@pytest.mark.parametrize(
    "estimator",
    [
        TransferAdvisor(task=1),
        TransferAdvisor("a" * 10**6),
        TransferAdvisor("https://user:HUSH@host/x"),
        Autoencoder(activation="a" * 10**6),
        ConvAutoencoder(batch_size=list(range(10**5))),
        Word2Vec(window={i: i for i in range(10**5)}),
        WordVectorFeatures([1] * 10**5),
        SentenceEncoder({}, encoder="https://user:HUSH@host/x"),
    ],
)
def test_errors_of_scikit_learn_are_short(estimator):
    with pytest.raises(InvalidParameterError, match=" Got .* instead") as caught:
        estimator._validate_params()
    assert len(str(caught.value)) < 500
    assert "HUSH" not in str(caught.value)


def test_a_long_name_of_a_checkpoint_is_cut():
    classifier = FineTuneClassifier(max_epochs=1, checkpoint="a" * 10**6, cache=None)
    with pytest.raises((OSError, ValueError), match="checkpoint") as caught:
        classifier.fit(np.zeros((4, 8, 8, 3), np.uint8), [0, 1, 0, 1])
    assert len(str(caught.value)) < 1000


FUNCTIONS = [
    function
    for package in (skdeepfeat, compression, inspection_package)
    for function in (getattr(package, name) for name in package.__all__)
    if hasattr(function, "_skl_parameter_constraints")
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_errors_of_functions_are_short(function):
    names = list(inspect.signature(function).parameters)
    with pytest.raises(InvalidParameterError, match=" Got .* instead") as caught:
        function(**dict.fromkeys(names, "https://user:HUSH@host/" + "a" * 10**6))
    assert len(str(caught.value)) < 1000
    assert "HUSH" not in str(caught.value)


def test_errors_of_estimators_within_keep_their_value():
    classifier, X = FineTuneClassifier(max_epochs="many"), np.zeros((4, 8, 8, 3))
    with pytest.raises(InvalidParameterError, match="'max_epochs'.*'many'"):
        check_can_learn(classifier, X, [0, 1, 0, 1], max_epochs=5)


@pytest.mark.parametrize("options", [{"path": ["a" * 10**6]}, {"max_size": "a" * 999}])
def test_errors_of_a_cache_are_short(options):
    with pytest.raises((TypeError, ValueError)) as caught:
        FeatureCache(**options)
    assert len(str(caught.value)) < 400
