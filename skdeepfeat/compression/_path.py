"""The order in which layers are made smaller: least energy lost for what is saved."""

from dataclasses import dataclass

from ._factorizations import Option
from ._layers import LayerUse


@dataclass(frozen=True, eq=False)
class Step:
    """A layer that is made smaller than it was after the step before.

    Attributes
    ----------
    use : LayerUse
    option : Option
    saved : int
        Multiply-adds or parameters, compared with the step before of this layer.
    slope : float
        Relative energy lost for each of them.
    """

    use: LayerUse
    option: Option
    saved: int
    slope: float


def greedy_path(uses, options, cost):
    """Return steps from the network as it is to the smallest one.

    Parameters
    ----------
    uses : list of LayerUse
    options : list of list of Option
        For each of the uses.
    cost : {"multiply_adds", "n_parameters"}
        What is to be saved. Options that save none of it are not used.

    Returns
    -------
    list of Step
        With ascending slopes.
    """
    steps = [
        step
        for use, choices in zip(uses, options, strict=True)
        for step in _steps_of(use, choices, cost)
    ]
    # Python's sort is stable, so that the steps of a layer keep their order.
    return sorted(steps, key=lambda step: step.slope)


def options_after(steps, n):
    """Return the option of each layer after the first n steps, by its name."""
    return {step.use.name: step.option for step in steps[:n]}


def _steps_of(use, options, cost):
    """Return the steps of a layer along the lower convex hull of (cost, error).

    On it, each step loses more for what it saves than the one before. Other options
    lose more than a mixture of two on the hull.
    """
    at, error = getattr(use, cost), 0.0
    left = [option for option in options if getattr(option, cost) < at]
    steps = []
    while left:
        slopes = [
            max(0.0, option.error - error) / (at - getattr(option, cost))
            for option in left
        ]
        # Of equal slopes, the smallest layer.
        slope, option = min(
            zip(slopes, left, strict=True),
            key=lambda pair: (pair[0], getattr(pair[1], cost)),
        )
        steps.append(Step(use, option, at - getattr(option, cost), slope))
        at, error = getattr(option, cost), option.error
        left = [one for one in left if getattr(one, cost) < at]
    return steps
