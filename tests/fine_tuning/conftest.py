"""Fits whose heads are found with few logistic models."""

import pytest

from skdeepfeat.training import _heads


@pytest.fixture(scope="module", autouse=True)
def few_folds():
    """Let heads be chosen by two folds: half of a tiny fit's time are logistic models.

    How a head is found is the subject of tests/training.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_heads, "_N_FOLDS", 2)
        yield
