"""CKA against its definition, and the similarity of layers from one pass."""

import numpy as np
import pytest
from networks import CountingStages, NormNet, rows_counted
from numpy.testing import assert_allclose
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skdeepfeat import BadImageWarning, PretrainedFeatureExtractor
from skdeepfeat.inspection import cka, similarity

N = 12


def independent(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(2, n, d))


def cka_by_definition(A, B):
    """Equation 5 of Song et al. (2012), term by term."""

    def hsic(K, L):
        n = len(K)
        K, L = K * (1 - np.eye(n)), L * (1 - np.eye(n))
        one = np.ones(n)
        first = np.trace(K @ L)
        second = (one @ K @ one) * (one @ L @ one) / ((n - 1) * (n - 2))
        third = 2 / (n - 2) * (one @ K @ L @ one)
        return (first + second - third) / (n * (n - 3))

    K, L = A @ A.T, B @ B.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


@pytest.mark.parametrize("n", [4, 9, 40])
@pytest.mark.parametrize("widths", [(3, 3), (3, 60), (60, 20)])
def test_cka_is_its_definition(n, widths):
    rng = np.random.default_rng(n)
    A, B = (rng.normal(size=(n, width)) + 5 for width in widths)
    B[:, :3] += A[:, :3]
    assert_allclose(cka(A, B), cka_by_definition(A, B), rtol=1e-8)
    assert_allclose(cka(A, B), cka(B, A))


def test_cka_of_a_rotation_is_one():
    A, noise = independent(50, 30)
    rotation, _ = np.linalg.qr(noise[:30])
    assert_allclose(cka(A, A), 1)
    assert_allclose(cka(A, A @ rotation * 7 - 1000), 1)
    assert cka(A, A @ np.diag(np.geomspace(1, 100, 30))) < 0.9


@pytest.mark.parametrize("n", [64, 256, 1024])
def test_cka_of_independent_features_is_near_zero(n):
    # The biased estimator says 0.95, 0.83 and 0.56.
    A, B = independent(n, 1280)
    assert abs(cka(A, B)) < 0.05


def test_cka_of_constants_is_nan():
    A, _ = independent(20, 3)
    assert np.isnan(cka(A, np.full((20, 5), 0.1)))
    assert np.isnan(cka(np.full((20, 5), np.float32(1e6)), A))


@pytest.mark.parametrize(
    ("A", "B", "match"),
    [
        (np.zeros((3, 2)), np.zeros((3, 2)), "minimum of 4 is required by cka"),
        (np.zeros((5, 2)), np.zeros((6, 2)), "inconsistent"),
        (np.zeros(5), np.zeros((5, 2)), "2D array"),
        (np.full((5, 2), np.inf), np.zeros((5, 2)), "A contains infinity"),
    ],
)
def test_bad_features(A, B, match):
    with pytest.raises(ValueError, match=match):
        cka(A, B)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def extractor(log):
    """Return a function that makes extractors of one network."""

    def make(model=None, **parameters):
        model = CountingStages(log) if model is None else model
        parameters = {"image_size": 32, "cache": None, **parameters}
        return PretrainedFeatureExtractor(model, **parameters)

    return make


def test_the_layers_of_one_extractor_come_from_one_pass(extractor, images, log):
    found = similarity(extractor(), images)
    assert rows_counted(log) == N
    names = ["conv", "layer2", "layer3", "neck"]
    assert found.index.tolist() == found.columns.tolist() == names
    rows = {name: extractor(layer=name).transform(images) for name in names}
    for a in names:
        for b in names:
            assert_allclose(found.loc[a, b], cka(rows[a], rows[b]), rtol=1e-4)


def test_several_extractors(extractor, images):
    pipe = make_pipeline(extractor(layer="layer2"), StandardScaler())
    both = similarity([pipe, extractor(NormNet())], images)
    assert both.index.tolist() == ["countingstages layer2", "normnet neck"]
    named = similarity({"old": pipe, "new": extractor(NormNet())}, images)
    assert named.index.tolist() == ["old", "new"]
    assert_allclose(named.to_numpy(), both.to_numpy())
    pairs = similarity({"old": pipe, "new": extractor(NormNet())}, images, ["neck", -1])
    assert pairs.index.tolist()[:2] == ["old neck", "old layer3"]


def test_images_that_cannot_be_read(extractor, images):
    broken = [*images, b"no image"]
    with pytest.warns(BadImageWarning):
        found = similarity(extractor(on_error="nan"), broken)
    assert_allclose(found, similarity(extractor(), images))
    with pytest.warns(BadImageWarning), pytest.raises(ValueError, match="'X' .* Got 3"):
        similarity(extractor(on_error="nan"), broken[-4:])


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"extractors": []}, ValueError, "'extractors' .*at least one"),
        ({"extractors": "resnet50"}, TypeError, "'extractors' .* Got 'resnet50'"),
        ({"extractors": [StandardScaler()]}, TypeError, "'extractors'"),
        ({"layers": "neck"}, ValueError, "'layers' parameter"),
        ({"layers": ["layer9"]}, ValueError, "'layers' parameter"),
    ],
)
def test_bad_parameters(extractor, images, log, arguments, error, match):
    with pytest.raises(error, match=match):
        similarity(**{"extractors": extractor(), "X": images, **arguments})
    assert rows_counted(log) == 0


def test_two_networks_of_one_name_need_names(extractor, images):
    with pytest.raises(ValueError, match="'extractors' .* Pass a dict"):
        similarity([extractor(), extractor()], images)
