"""The `layer` and `pooling` parameters: from what a user writes to outputs."""

import numbers
from dataclasses import dataclass

from ._layer import Layer
from ._messages import choice_error
from ._pooling import POOLINGS, can_pool, n_pooled, resolve_pooling
from ._probe import Probe

__all__ = ["Output", "resolve_outputs"]


@dataclass(frozen=True)
class Output:
    """One wanted layer, with what is done to it.

    Attributes
    ----------
    layer : str
        The module's name, ``"neck"`` or ``"output"``.
    pooling : {"avg", "max", "gem", "flatten", "cls", "mean"} or None
        None where the layer's vectors are taken as they are.
    n_features : int
    source : Layer
        What the probe knows of it.
    """

    layer: str
    pooling: str | None
    n_features: int
    source: Layer


def resolve_outputs(
    layer, pooling, probe: Probe, stages, model, parameter="layer"
) -> tuple[Output, ...]:
    """Return one record for each wanted layer, in the user's order.

    Parameters
    ----------
    layer : None, str, int or sequence of str and int
    pooling : str
    probe : Probe
    stages : callable
        Returns the names of the layers that end the stages; called for integers only.
    model : str
        The network's name, for messages.
    parameter : str, default="layer"
        The name of the parameter that `layer` comes from, for messages.

    Returns
    -------
    tuple of Output

    Raises
    ------
    TypeError, ValueError
        With the parameter's name first.
    """
    if not isinstance(pooling, str) or pooling not in POOLINGS:
        wanted = f"one of {', '.join(map(repr, POOLINGS))}"
        error = ValueError if isinstance(pooling, str) else TypeError
        raise choice_error("pooling", wanted, pooling, POOLINGS, error)
    wanted = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    if not wanted:
        raise choice_error(parameter, "None, a layer or a list of at least one", layer)
    found = [_find(one, probe, stages, model, parameter) for one in wanted]
    seen = set()
    for one in found:
        if one is probe.neck and not one.is_offered:
            wanted = (
                "a network that returns one row of floating-point numbers for each "
                "image of a batch of shape (n, 3, height, width), which this one does "
                "not; or choose a 'layer' of it that does"
            )
            raise choice_error("model", wanted, model)
        if not one.is_offered:
            wanted = f"a layer of {model!r} with one row of numbers for each image"
            raise choice_error(parameter, wanted, one.name)
        if one.name in seen:
            wanted = f"a list without repetitions ({one.name!r} is in it twice)"
            raise choice_error(parameter, wanted, layer)
        seen.add(one.name)
    _check_pooling_does_something(pooling, found, probe, model)
    outputs = []
    for one in found:
        how = resolve_pooling(pooling, one)
        outputs.append(Output(one.name, how, n_pooled(one, how), one))
    return tuple(outputs)


def _find(wanted, probe, stages, model, parameter):
    if wanted is None or (isinstance(wanted, str) and wanted == "neck"):
        return probe.neck
    if isinstance(wanted, str):
        if wanted == "output":
            return probe.output
        found = probe.layers.get(wanted)
        if found is None or not found.is_offered:
            offered = [n for n, one in probe.layers.items() if one.is_offered]
            raise choice_error(
                parameter,
                f"None, 'neck', 'output', a stage's number or one of the "
                f"{len(offered)} layers of {model!r} that list_layers shows, or a list "
                "of these",
                wanted,
                ["neck", "output", *offered],
            )
        return found
    if isinstance(wanted, numbers.Integral) and not isinstance(wanted, bool):
        names = stages()
        if not -len(names) <= wanted < len(names):
            raise choice_error(
                parameter,
                f"a stage's number from {-len(names)} to {len(names) - 1} for "
                f"{model!r}",
                wanted,
            )
        return probe.layers[names[wanted]]
    raise choice_error(
        parameter,
        "None, the name of a layer, a stage's number or a list of these",
        wanted,
        error=TypeError,
    )


def _check_pooling_does_something(pooling, found, probe, model):
    """Refuse a pooling that no wanted layer can undergo: it would do nothing."""
    if pooling not in ("max", "gem", "cls"):
        return
    if any(one.layout != "vector" for one in found):
        return
    candidates = [one.name for one in probe.layers.values() if _offers(one, pooling)]
    names = ", ".join(repr(one.name) for one in found)
    if not candidates:
        what = "class token" if pooling == "cls" else "map or tokens to pool"
        wanted = f"'auto' for {model!r}, which has no {what}"
    else:
        wanted = (
            f"'auto' for {names} of {model!r}, which is a vector already; layer "
            f"{candidates[-1]!r} can be pooled so"
        )
    raise choice_error("pooling", wanted, pooling)


def _offers(layer, pooling):
    single = layer.layout in ("NCHW", "NHWC") and layer.shape.count(1) >= 2
    return layer.is_offered and not single and can_pool(layer, pooling)
