"""Tests of the losses of pairs, against plain loops written from the papers."""

import json
import pathlib

import numpy as np
import pytest
import torch

from skdeepfeat.training import PAIR_LOSSES, alignment, uniformity


def views(n=7, d=5, seed=0):
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(n, d)) + 1
    return first, first + 0.4 * rng.normal(size=(n, d))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def naive_alignment(first, second):
    pairs = zip(unit(first), unit(second), strict=True)
    return np.mean([((a - b) ** 2).sum() for a, b in pairs])


def naive_uniformity(rows):
    rows = unit(rows)
    potentials = [
        np.exp(-2 * ((rows[i] - rows[j]) ** 2).sum())
        for i in range(len(rows))
        for j in range(i)
    ]
    return np.log(np.mean(potentials))


def naive_simclr(first, second, temperature=0.5):
    n = len(first)
    rows = unit(np.concatenate([first, second]))
    losses = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = [
            np.exp(rows[i] @ rows[k] / temperature) for k in range(2 * n) if k != i
        ]
        losses.append(-np.log(np.exp(rows[i] @ rows[j] / temperature) / sum(others)))
    return np.mean(losses)


def naive_barlow(first, second):
    first, second = (
        (v - v.mean(0)) / np.sqrt(v.var(0) + 1e-6) for v in (first, second)
    )
    n, d = first.shape
    loss = 0.0
    for i in range(d):
        for j in range(d):
            c = (first[:, i] * second[:, j]).sum() / n
            loss += (1 - c) ** 2 if i == j else 5e-3 * c**2
    return loss


def naive_vicreg(first, second):
    n, d = first.shape
    loss = 25 * ((first - second) ** 2).mean()
    for view in (first, second):
        for k in range(d):
            deviation = np.sqrt(view[:, k].var(ddof=1) + 1e-4)
            loss += 25 * max(0, 1 - deviation) / d / 2
        centered = view - view.mean(0)
        for i in range(d):
            for j in range(d):
                if i != j:
                    c = (centered[:, i] * centered[:, j]).sum() / (n - 1)
                    loss += c**2 / d
    return loss


NAIVE = {
    "vicreg": naive_vicreg,
    "barlow": naive_barlow,
    "simclr": naive_simclr,
    "align_uniform": lambda a, b: (
        naive_alignment(a, b) + (naive_uniformity(a) + naive_uniformity(b)) / 2
    ),
    "byol": lambda a, b: np.mean(2 - 2 * (unit(a) * unit(b)).sum(axis=1)),
}


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_each_loss_is_that_of_its_paper(name, seed, scale):
    first, second = (scale * view for view in views(seed=seed))
    tensors = torch.from_numpy(first), torch.from_numpy(second)
    value = float(PAIR_LOSSES[name].function(*tensors))
    assert value == pytest.approx(NAIVE[name](first, second), rel=1e-6)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_each_loss_is_that_of_lightly(name):
    # `store_lightly_losses.py` has written them.
    stored = pathlib.Path(__file__).with_name("lightly_losses.json").read_text()
    for case in json.loads(stored)["cases"]:
        views = (
            torch.tensor(case[k], dtype=torch.float64) for k in ("first", "second")
        )
        value = float(PAIR_LOSSES[name].function(*views))
        # lightly's Barlow Twins adds ten times as much to the variance.
        tolerance = 1e-3 if name == "barlow" else 1e-9
        assert value == pytest.approx(case["losses"][name], rel=tolerance)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_step_against_the_gradient_lowers_the_loss(name):
    first, second = map(torch.from_numpy, views(n=16))
    loss = PAIR_LOSSES[name].function
    first.requires_grad_(True)
    before = loss(first, second)
    (gradient,) = torch.autograd.grad(before, first)
    with torch.no_grad():
        after = loss(first - 1e-4 * gradient, second)
    assert after < before and torch.isfinite(gradient).all()


def test_equal_views_have_the_values_of_the_closed_forms():
    orthogonal = torch.eye(6, dtype=torch.float64)
    assert float(alignment(orthogonal, orthogonal)) == 0
    # Distances on the sphere are sqrt(2), so the potential is exp(-4) everywhere.
    assert float(uniformity(orthogonal)) == pytest.approx(-4)
    assert float(PAIR_LOSSES["byol"].function(orthogonal, orthogonal)) == (
        pytest.approx(0, abs=1e-12)
    )
    # One partner at similarity 1, ten others at 0, temperature 1/2.
    expected = -np.log(np.exp(2) / (np.exp(2) + 10))
    loss = PAIR_LOSSES["simclr"].function(orthogonal, orthogonal)
    assert float(loss) == pytest.approx(expected)


@pytest.mark.parametrize("d", [32, 128])
def test_random_points_on_a_sphere_are_uniform(d):
    # For large d, the distances are near sqrt(2): log E exp(-2 D) -> -4 + 8 / d.
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.normal(size=(2000, d)))
    assert float(uniformity(rows)) == pytest.approx(-4 + 8 / d, abs=0.02)


def test_the_target_of_byol_gets_no_gradient():
    first, second = map(torch.from_numpy, views())
    second.requires_grad_(True)
    loss = PAIR_LOSSES["byol"].function(first.requires_grad_(True), second)
    loss.backward()
    assert second.grad is None and first.grad is not None
