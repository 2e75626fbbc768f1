"""scikit-learn's own checks, run on the real class.

Most checks skip themselves for an estimator whose input is images. So they run on
flat rows, the one form of images that is also a table of numbers.
"""

import pytest
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks
from tables import tables_are_images  # noqa: F401

from skdeepfeat import PretrainedFeatureExtractor

# Every check that cannot apply, with its reason.
EXPECTED_FAILURES = {}

# An early layer: check_methods_subset_invariance compares element by element to 1e-4
# and 1e-7, and behind fifty layers of float32 a few values near zero differ by more
# between a batch of 1 and one of 20.
EXTRACTOR = PretrainedFeatureExtractor(
    layer=1, flat_image_shape=(1, 1), image_size=32, cache=None
)


@pytest.mark.usefixtures("tables_are_images")
@parametrize_with_checks(
    [EXTRACTOR], expected_failed_checks=lambda _: EXPECTED_FAILURES
)
def test_scikit_learn_checks(estimator, check):
    assert type(estimator) is PretrainedFeatureExtractor
    check(estimator)


def test_images_are_announced_as_such():
    with pytest.warns(match="requires input of type|requires input  of type"):
        check_estimator(PretrainedFeatureExtractor(), on_skip=None)
