"""scikit-learn's own checks, run on the two real fine-tuning estimators.

Most checks skip themselves for an estimator whose input is images. So they run on
flat rows, the one form of images that is also a table of numbers, with a tiny network
and few epochs.
"""

import numpy as np
import pytest
from networks import fix_weights
from numpy.testing import assert_allclose
from sklearn.utils.estimator_checks import (
    check_estimator,
    check_estimators_overwrite_params,
    parametrize_with_checks,
)
from tables import tables_are_images  # noqa: F401
from torch import nn

from skdeepfeat import FineTuneClassifier, FineTuneRegressor

pytestmark = pytest.mark.usefixtures("tables_are_images")

# Every check that cannot apply, with its reason.
EXPECTED_FAILURES = {
    "check_estimators_overwrite_params": (
        "joblib gives a deep copy of a torch tensor another hash than the tensor. The "
        "check runs below with a network that is a name."
    ),
    "check_sample_weight_equivalence_on_dense_data": (
        "A row that is there twice is drawn twice an epoch, in other batches and other "
        "held-out parts than one of weight two. That a weight of zero equals a missing "
        "row is tested in test_classifier.py."
    ),
    "check_methods_subset_invariance": (
        "Networks compute in float32, whose last digits depend on the size of the "
        "batch; the check wants 1e-7. It runs below with 1e-5."
    ),
}

# Pixels. Rows of any width are stretched to this many columns, and none is cut off.
WIDTH = 16
GEOMETRY = {"resize": (2, WIDTH), "crop": (2, WIDTH), "interpolation": "bilinear"}


class TinyNet(nn.Module):
    """Two convolutions whose maps keep their places, and a head to be chopped off."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.head = nn.Linear(4 * WIDTH // 2, 5)
        fix_weights(self, scale=1 / 4)

    def __repr__(self):
        return "TinyNet()"  # it is part of the names of the checks

    def forward(self, x):
        return self.head(self.body(self.stem(x).relu()).relu().flatten(1))


PARAMETERS = {
    "model": TinyNet(),
    "flat_image_shape": (1, 1),
    "preprocessing": GEOMETRY,
    "augment": None,  # a table's columns have an order
    "max_epochs": 2,
    "learning_rate": 1e-3,
    "cache": None,
    "random_state": 0,
}


@parametrize_with_checks(
    [FineTuneClassifier(**PARAMETERS), FineTuneRegressor(**PARAMETERS)],
    expected_failed_checks=lambda _: EXPECTED_FAILURES,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
def test_parameters_stay_as_they_are(kind):
    named = {"model": "efficientnet_lite0", "preprocessing": None, "image_size": 32}
    estimator = kind(**{**PARAMETERS, **named, "max_epochs": 1})
    check_estimators_overwrite_params(kind.__name__, estimator)


@pytest.mark.parametrize("kind", [FineTuneClassifier, FineTuneRegressor])
def test_outputs_do_not_depend_on_the_batch(kind):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 3)), np.arange(20) % 3
    estimator = kind(**PARAMETERS).fit(X, y)
    for method in ("predict", "transform", "predict_proba", "decision_function"):
        if hasattr(estimator, method):
            call = getattr(estimator, method)
            apart = np.concatenate([call(X[i : i + 1]) for i in range(20)])
            assert_allclose(call(X), apart, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("estimator", [FineTuneClassifier(), FineTuneRegressor()])
def test_images_are_announced_as_such(estimator):
    with pytest.warns(match="requires input of type|requires input  of type"):
        check_estimator(estimator, on_skip=None)
