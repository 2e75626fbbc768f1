"""Schedules against their formulas and torch's own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skdeepfeat.training import SCHEDULES
from skdeepfeat.training._schedules import learning_rate_factor

N = 40

FORMULAS = {
    "constant": lambda t: 1.0,
    "step": lambda t: 1.0 if t < 0.5 else 0.1 if t < 0.75 else 0.01,
    "exponential": lambda t: 10 ** (-2 * t),
    "sqrt": lambda t: (1 - t) ** 0.5,
    "inverse": lambda t: 1 / (1 + 9 * t),
    "cosine": lambda t: 0.5 * (1 + math.cos(math.pi * t)),
}


def factors(schedule, n_steps=N, **options):
    return [learning_rate_factor(schedule, i, n_steps, **options) for i in range(N)]


def rates_of_torch(make_scheduler, n_steps):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9)
    scheduler = make_scheduler(optimizer)
    rates = []
    for _ in range(n_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("schedule", FORMULAS)
def test_formula(schedule):
    wanted = [FORMULAS[schedule](i / N) for i in range(N)]
    assert factors(schedule) == pytest.approx(wanted, rel=1e-12)


def test_every_schedule_is_tested():
    assert {*FORMULAS, "one_cycle"} == set(SCHEDULES)


def test_cosine_is_torchs():
    wanted = rates_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, N), N
    )
    assert factors("cosine") == pytest.approx(wanted, abs=1e-9)


def test_one_cycle_is_torchs():
    # torch reaches the end at its last step, we one step after it; so it gets one
    # more, and the share that puts the peak at the same step.
    wanted = rates_of_torch(
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=1.0,
            total_steps=N + 1,
            pct_start=(0.3 * N + 1) / (N + 1),
            div_factor=25,
            final_div_factor=400,
            cycle_momentum=False,
        ),
        N,
    )
    assert factors("one_cycle") == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("schedule", sorted({*SCHEDULES} - {"one_cycle"}))
def test_warmup_rises_linearly_and_the_rest_follows(schedule):
    found = factors(schedule, warmup=0.25)
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[10:] == pytest.approx([FORMULAS[schedule](i / 30) for i in range(30)])


def test_one_cycle_takes_no_other_warmup():
    assert factors("one_cycle", warmup=0.25) == factors("one_cycle")


def test_warmup_of_the_whole_run():
    assert factors("cosine", warmup=1.0)[-1] == 1.0


@pytest.mark.parametrize(
    ("schedule", "end"),
    [("cosine", 0.0), ("sqrt", 0.0), ("inverse", 0.1), ("exponential", 0.01)],
)
def test_where_a_long_run_begins_and_ends(schedule, end):
    n_steps = 10**8
    assert learning_rate_factor(schedule, 0, n_steps) == 1.0
    last = learning_rate_factor(schedule, n_steps - 1, n_steps)
    assert last == pytest.approx(end, abs=2e-4)


@given(
    schedule=st.sampled_from(SCHEDULES),
    n_steps=st.integers(1, 10**6),
    share=st.floats(0, 1, exclude_max=True),
    warmup=st.floats(0, 1),
)
def test_factor_is_a_share_of_the_highest_rate(schedule, n_steps, share, warmup):
    step = int(share * n_steps)
    assert 0 <= learning_rate_factor(schedule, step, n_steps, warmup) <= 1


@pytest.mark.parametrize("step", [0, 5])
def test_an_unknown_schedule_is_an_error(step):
    with pytest.raises(ValueError, match="'schedule' parameter.*Did you mean 'cosine'"):
        learning_rate_factor("cosin", step, 10, warmup=0.2)
