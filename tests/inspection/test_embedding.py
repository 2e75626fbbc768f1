"""embedding: points in the plane from few or many, wide or narrow features."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.decomposition import PCA, KernelPCA
from sklearn.manifold import Isomap
from sklearn.preprocessing import StandardScaler

from skdeepfeat.inspection import embedding


def features(n, d):
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


def test_pca_is_that_of_scikit_learn():
    F = features(40, 100)
    found = embedding(F, "pca", random_state=0)
    assert_allclose(found, PCA(2, random_state=0).fit_transform(F))


def test_tsne_separates_groups_and_is_reproducible():
    F = features(60, 80)
    F[:30] += 5
    points = embedding(F, random_state=0)
    assert_allclose(embedding(F, random_state=0), points)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    assert ((nearest < 30) == (np.arange(60) < 30)).all()


def test_a_transformer_is_cloned():
    isomap = Isomap(n_neighbors=10)
    assert embedding(features(30, 4), isomap).shape == (30, 2)
    assert not hasattr(isomap, "embedding_")
    assert embedding(features(30, 4), KernelPCA(2)).shape == (30, 2)


@pytest.mark.parametrize("method", ["pca", "tsne"])
@pytest.mark.parametrize(("n", "d"), [(3, 10), (5, 1), (10, 2)])
def test_few_images_and_few_features(method, n, d):
    assert embedding(features(n, d), method, random_state=0).shape == (n, 2)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"features": features(2, 5)}, "minimum of 3"),
        ({"features": np.full((5, 5), np.nan)}, "features contains NaN"),
        ({"features": np.ones((10, 5))}, "'features' .* rows that differ"),
        ({"method": "umap"}, "'method' parameter"),
        ({"method": StandardScaler()}, "'method' .*two columns.*shape"),
    ],
)
def test_bad_input(arguments, match):
    with pytest.raises(ValueError, match=match):
        embedding(**{"features": features(10, 5), **arguments})
