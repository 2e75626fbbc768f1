"""scikit-learn's own checks, run for real.

Most checks skip themselves for an estimator whose input is images. So they run on
flat rows, the one form of images that is also a table of numbers. The checks bring
tables of any width and any values; the subclass below says of each table which shape
its rows have and brings its values into [0, 1], everything else is the estimator.
"""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from skdeepfeat import PretrainedFeatureExtractor

# Every check that cannot apply, with its reason.
EXPECTED_FAILURES = {}


class FlatRowsExtractor(PretrainedFeatureExtractor):
    """Rows of any width are images one pixel high; values are squashed into [0, 1]."""

    def __init__(self, image_shape=(1, 1), image_size=32, cache=None):
        # An early layer: check_methods_subset_invariance compares element by element
        # to 1e-4 and 1e-7, and behind fifty layers of float32 a few values near zero
        # differ by more between a batch of 1 and one of 20.
        super().__init__(
            layer=1, image_shape=image_shape, image_size=image_size, cache=cache
        )

    def _extract(self, X):
        flat = PretrainedFeatureExtractor(
            layer=self.layer,
            image_shape=(1, X.shape[1]),
            image_size=self.image_size,
            cache=self.cache,
        )
        return flat.transform(expit(X.astype(np.float64)))


@parametrize_with_checks(
    [FlatRowsExtractor()], expected_failed_checks=lambda _: EXPECTED_FAILURES
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_images_are_announced_as_such():
    with pytest.warns(match="requires input of type|requires input  of type"):
        check_estimator(PretrainedFeatureExtractor(), on_skip=None)
