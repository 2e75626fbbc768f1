"""Tables of any width and any values as images, for scikit-learn's checks."""

import numpy as np
import pytest
from scipy.special import expit

from skdeepfeat.images import make_image_source


@pytest.fixture
def tables_are_images(monkeypatch):
    """Take each row of any table for an image one pixel high.

    The checks bring tables of their own. Only where X becomes images are they told of
    the table's width, and its values are squashed into [0, 1]. The estimators, and all
    that they do before and afterwards, are the real ones.
    """

    def source(X, flat_image_shape, *args, **kwargs):
        X = expit(np.asarray(X, np.float64))
        return make_image_source(X, (1, X.shape[1]), *args, **kwargs)

    name = "skdeepfeat.feature_extraction._settings.make_image_source"
    monkeypatch.setattr(name, source)
