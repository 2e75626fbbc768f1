"""Fits whose heads are found with few logistic models."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def quick_heads(few_folds):
    """Use fewer folds in all fits of this folder."""
