"""The parameters `layer` and `pooling`: from what a user writes to outputs."""

from dataclasses import dataclass

from ..._utils import _choices
from ..._utils._parameter_errors import choice_error, is_int, look_up
from ..running._layer import Layer
from ..running._poolings import (
    can_pool,
    can_replace_pool,
    changes_vectors,
    n_pooled,
    resolve_pooling,
)
from ._stages import last_map_of, stages_of


@dataclass(frozen=True)
class Output:
    """A wanted layer and its pooling.

    Attributes
    ----------
    layer : str
        The module's name, ``"neck"`` or ``"output"``.
    pooling : str or None
        None if the layer's output is a vector, which is not pooled.
    n_features : int
    source : Layer
        The layer that is pooled: not `layer` itself if the neck is a different pooling
        of the network's last map.
    replaces_pool : bool
        Whether this pooling replaces the network's own.
    """

    layer: str
    pooling: str | None
    n_features: int
    source: Layer
    replaces_pool: bool = False


def resolve_outputs(layer, pooling, probe, spec, parameter="layer"):
    """Return one record for each wanted layer, in the user's order.

    Parameters
    ----------
    layer : None, str, int or sequence of str and int
    pooling : str
    probe : Probe
    spec : NetworkSpec
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
    look_up(dict.fromkeys(_choices.POOLINGS), pooling, "pooling")
    wanted = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    if not wanted:
        raise choice_error(parameter, "None, a layer or a list of at least one", layer)
    outputs = {}
    for one in wanted:
        found = _find(one, probe, spec, parameter)
        if found.name in outputs:
            wanted = f"a list without repetitions ({found.name!r} is in it twice)"
            raise choice_error(parameter, wanted, layer)
        outputs[found.name] = _pooled(found, pooling, probe, spec)
    outputs = tuple(outputs.values())
    if changes_vectors(pooling) and all(one.pooling is None for one in outputs):
        raise _no_effect(pooling, outputs, probe, spec)
    return outputs


def _find(wanted, probe, spec, parameter):
    """Return the layer that one value of the parameter means."""
    if wanted is None or (isinstance(wanted, str) and wanted in ("neck", "output")):
        found = probe.output if wanted == "output" else probe.neck
        if found is probe.neck and not found.is_offered:
            wanted = (
                "a network that returns one row of floating-point numbers for each "
                f"{_kind_of_batch(spec)}, which this one does not; or choose a 'layer' "
                "of it that does"
            )
            raise choice_error("model", wanted, spec.name)
    elif isinstance(wanted, str):
        found = probe.layers.get(wanted)
        if found is None or not found.is_offered:
            offered = [n for n, one in probe.layers.items() if one.is_offered]
            raise choice_error(
                parameter, _wanted(spec, offered), wanted, ["neck", "output", *offered]
            )
    elif is_int(wanted):
        names = stages_of(spec)
        if not -len(names) <= wanted < len(names):
            raise choice_error(
                parameter,
                f"a stage's number from {-len(names)} to {len(names) - 1} for "
                f"{spec.name!r}",
                wanted,
            )
        found = probe.layers[names[wanted]]
    else:
        raise choice_error(
            parameter,
            "None, the name of a layer, a stage's number or a list of these",
            wanted,
            error=TypeError,
        )
    if not found.is_offered:
        kind = "item" if spec.takes_items else "image"
        wanted = f"a layer of {spec.name!r} with one row of numbers for each {kind}"
        raise choice_error(parameter, wanted, found.name)
    return found


def _kind_of_batch(spec):
    if spec.takes_items:
        return "item of a batch"
    return "image of a batch of shape (n, 3, height, width)"


def _wanted(spec, offered):
    if spec.takes_items:
        return (
            f"None, 'neck', 'output' or one of the {len(offered)} modules of "
            f"{spec.name!r} that return one row of numbers for each item, or a list of "
            "these"
        )
    return (
        f"None, 'neck', 'output', a stage's number or one of the {len(offered)} layers "
        f"of {spec.name!r} that list_layers shows, or a list of these"
    )


def _pooled(layer, pooling, probe, spec):
    """Return the output of a layer after a pooling."""
    if layer is probe.neck and layer.layout == "vector" and changes_vectors(pooling):
        # The network has already pooled. With a different pooling, the neck of timm's
        # networks keeps the layers between the pooling and the classifier. The neck of
        # other networks is their pooled last map or their tokens.
        last = None if spec.takes_items else last_map_of(spec, probe)
        if last is not None and can_pool(last, pooling):
            name = resolve_pooling(pooling, last)
            if can_replace_pool(probe.own_pool, name):
                return Output("neck", name, n_pooled(layer, None), layer, True)
            return Output("neck", name, n_pooled(last, name), last)
    name = resolve_pooling(pooling, layer)
    return Output(layer.name, name, n_pooled(layer, name), layer)


def _no_effect(pooling, outputs, probe, spec):
    """Return the error for a pooling that would change no wanted layer."""
    candidates = [
        one.name
        for one in probe.layers.values()
        if one.is_offered
        and can_pool(one, pooling)
        # A map with a single position is not worth pooling.
        and not (one.layout in ("NCHW", "NHWC") and one.n_positions == 1)
    ]
    if candidates:
        names = ", ".join(repr(one.layer) for one in outputs)
        wanted = (
            f"'auto' for {names} of {spec.name!r}, which is a vector already; layer "
            f"{candidates[-1]!r} can be pooled so"
        )
    else:
        what = "class token" if pooling == "cls" else "map or tokens to pool"
        wanted = f"'auto' for {spec.name!r}, which has no {what}"
    return choice_error("pooling", wanted, pooling)
