"""The `layer` and `pooling` parameters: from what a user writes to outputs."""

import numbers
from dataclasses import dataclass

from .._parameter_errors import choice_error
from ..running._layer import Layer
from ..running._poolings import POOLINGS, can_pool, n_pooled, resolve_pooling
from ..running._timm_pooling import SWAPPED_POOLINGS
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
        What the probe knows of what is pooled: of another module than `layer` where
        the neck is made of the network's last map.
    swaps_pool : bool
        Whether the neck is what the network computes with this pooling as its own.
    """

    layer: str
    pooling: str | None
    n_features: int
    source: Layer
    swaps_pool: bool = False

    @property
    def module(self):
        """The name of the module whose output is pooled, if it is one's."""
        return self.source.name


def resolve_outputs(
    layer, pooling, probe: Probe, stages, model, parameter="layer", last_map=None
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
    last_map : callable, default=None
        Returns the name of the last layer with a map or tokens, or None; called where
        a neck that is a vector is to be pooled otherwise.

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
    outputs = []
    for one in found:
        output = None
        if one is probe.neck and one.layout == "vector" and last_map is not None:
            output = _pooled_neck(pooling, probe, last_map)
        if output is None:
            how = resolve_pooling(pooling, one)
            output = Output(one.name, how, n_pooled(one, how), one)
        outputs.append(output)
    _check_pooling_does_something(pooling, outputs, probe, model)
    return tuple(outputs)


def _pooled_neck(pooling, probe, last_map):
    """Return the neck with another pooling than the network's own, or None.

    Of timm's networks it is what they compute with that pooling as their own, with the
    layers between it and the classifier. Of others it is the last map, or the tokens.
    """
    # Under the others a vector stays what it is.
    if pooling not in ("max", "gem", "cls") or (name := last_map()) is None:
        return None
    last = probe.layers[name]
    if not can_pool(last, pooling):
        return None
    how = resolve_pooling(pooling, last)
    if how in SWAPPED_POOLINGS.get(probe.own_pool, ()):
        return Output("neck", how, n_pooled(probe.neck, None), probe.neck, True)
    return Output("neck", how, n_pooled(last, how), last)


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


def _check_pooling_does_something(pooling, outputs, probe, model):
    """Refuse a pooling that no wanted layer can undergo: it would do nothing."""
    if pooling not in ("max", "gem", "cls"):
        return
    if any(one.pooling is not None for one in outputs):
        return
    candidates = [one.name for one in probe.layers.values() if _offers(one, pooling)]
    names = ", ".join(repr(one.layer) for one in outputs)
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
