"""Learning rate schedules, as factors of the highest learning rate."""

import math

from .._utils._parameter_errors import look_up

# One-cycle (Smith and Topin, "Super-convergence", 2018) with the proportions of
# fastai and torch's OneCycleLR.
_CYCLE_START = 1 / 25
_CYCLE_END = 1e-4
_CYCLE_PEAK = 0.3

# The step schedule divides by 10 after one half and after three quarters (He et al.,
# "Deep residual learning", 2016); the exponential one ends at a hundredth.
_STEPS = (0.5, 0.75)
_STEP_FACTOR = 0.1
_EXPONENTIAL_END = 0.01
# 1 / (1 + k t) ends at a tenth.
_INVERSE_SLOPE = 9.0


def _one_cycle(t):
    if t < _CYCLE_PEAK:
        return _cosine_between(_CYCLE_START, 1.0, t / _CYCLE_PEAK)
    return _cosine_between(1.0, _CYCLE_END, (t - _CYCLE_PEAK) / (1 - _CYCLE_PEAK))


def _cosine_between(start, end, t):
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2


# Each maps the finished fraction of the run, t in [0, 1], to a factor in [0, 1].
_FACTORS = {
    "constant": lambda t: 1.0,
    "step": lambda t: _STEP_FACTOR ** sum(t >= step for step in _STEPS),
    "exponential": lambda t: _EXPONENTIAL_END**t,
    "sqrt": lambda t: math.sqrt(1 - t),
    "inverse": lambda t: 1 / (1 + _INVERSE_SLOPE * t),
    "cosine": lambda t: _cosine_between(1.0, 0.0, t),
    "one_cycle": _one_cycle,
}

SCHEDULES = tuple(_FACTORS)


def learning_rate_factor(schedule, step, n_steps, warmup=0.0):
    """Return the factor of the learning rate at one step.

    Parameters
    ----------
    schedule : str
        One of `SCHEDULES`: ``"constant"``; ``"step"``, divided by 10 after one half and
        after three quarters; ``"exponential"``, down to a hundredth; ``"sqrt"``,
        sqrt(1 - t / T); ``"inverse"``, 1 / (1 + 9 t / T); ``"cosine"``, down to 0
        (Loshchilov and Hutter, "SGDR", 2017); ``"one_cycle"``, up and down again.
    step : int
        Counted from 0.
    n_steps : int
        Of the whole run.
    warmup : float, default=0.0
        Fraction of the run, 0 to 1, during which the factor first rises linearly.
        Not used by one-cycle, which has its own rise.

    Returns
    -------
    float
        In [0, 1].
    """
    factor = look_up(_FACTORS, schedule, "schedule")
    if schedule == "one_cycle":
        return factor(step / max(1, n_steps))
    n_warmup = round(warmup * n_steps)
    if step < n_warmup:
        return (step + 1) / n_warmup
    return factor((step - n_warmup) / max(1, n_steps - n_warmup))
