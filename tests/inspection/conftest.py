"""Images with a bright square, and pipelines that have learned to find it."""

import numpy as np
import pytest
from relu_networks import SIZE, make_extractor
from sklearn.pipeline import make_pipeline


@pytest.fixture(scope="package")
def planted():
    """Return images, whether they have a square, and the quadrant it lies in."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (40, SIZE, SIZE, 3), dtype=np.uint8)
    quadrants = np.arange(40) % 8 // 2
    has_square = np.arange(40) % 2 == 0
    half = SIZE // 2
    for i in np.flatnonzero(has_square):
        top, left = divmod(int(quadrants[i]), 2)
        images[i, top * half :, left * half :][: half - 1, : half - 1] = 250
    labels = np.where(has_square, "square", "none")
    return images, labels, quadrants


@pytest.fixture
def extractor():
    return make_extractor()


@pytest.fixture
def piped():
    """Return a function that puts steps behind an extractor, and fits them."""

    def fit(X, y, *steps, network=None, **parameters):
        return make_pipeline(make_extractor(network, **parameters), *steps).fit(X, y)

    return fit
