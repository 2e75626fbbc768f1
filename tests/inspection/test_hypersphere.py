"""Tests of alignment and uniformity."""

import numpy as np
import pandas as pd
import pytest

from skdeepfeat.inspection import alignment, uniformity


def test_they_equal_plain_loops_whatever_the_norms():
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(9, 4)) * rng.uniform(0.1, 10, size=(9, 1))
    unit = Z / np.linalg.norm(Z, axis=1, keepdims=True)
    pairs = [(0, 3), (1, 4), (8, 2)]
    expected = np.mean([((unit[i] - unit[j]) ** 2).sum() for i, j in pairs])
    assert alignment(Z, pairs) == pytest.approx(expected)
    potentials = [
        np.exp(-2 * ((unit[i] - unit[j]) ** 2).sum())
        for i in range(9)
        for j in range(i)
    ]
    assert uniformity(Z) == pytest.approx(np.log(np.mean(potentials)))


def test_equal_embeddings_are_aligned_and_not_uniform():
    Z = np.ones((5, 3))
    assert alignment(Z, [[0, 1], [2, 4]]) == 0
    assert uniformity(Z) == 0


@pytest.mark.parametrize(
    ("Z", "pairs", "match"),
    [
        ([[1.0, 0.0], [0.0, 0.0]], [[0, 1]], "Row 1 of Z is zero"),
        ([[1.0, 0.0], [0.0, np.nan]], [[0, 1]], "NaN"),
        ([[1.0, 0.0], [0.0, 1.0]], [[0, 2]], "from 0 to 1"),
        ([[1.0, 0.0], [0.0, 1.0]], [[0, -1]], "from 0 to 1"),
        ([[1.0, 0.0], [0.0, 1.0]], [[0.5, 1.0]], "array of int"),
        ([[1.0, 0.0], [0.0, 1.0]], [[0, 1, 1]], "n_pairs, 2"),
        ([[1.0, 0.0]], [[0, 0]], "2"),
    ],
)
def test_bad_input_is_refused(Z, pairs, match):
    with pytest.raises(ValueError, match=match):
        alignment(Z, pairs)


def test_huge_and_tiny_embeddings_have_a_direction():
    Z = np.random.default_rng(0).normal(size=(6, 3))
    pairs = pd.DataFrame([[0, 1], [2, 3]])
    for factor in (1e-200, 1e200):
        assert uniformity(factor * Z) == pytest.approx(uniformity(Z))
        assert alignment(factor * Z, pairs) == pytest.approx(alignment(Z, pairs))
