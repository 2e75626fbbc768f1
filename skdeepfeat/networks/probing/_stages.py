"""Counting a network's stages, as timm's ``out_indices`` do.

Stage 0 is the first resolution (the stem's), -1 the last. Networks of one resolution
count their blocks.
"""

import math
from collections import defaultdict

from ..running._layer import Layer
from ._probe import Probe

__all__ = ["find_last_map", "find_stages"]

# These bring any map to a fixed size, whatever stage it is from.
_RESIZERS = ("AdaptiveAvgPool2d", "AdaptiveMaxPool2d")


def find_stages(probe: Probe, size) -> tuple[str, ...]:
    """Return the names of the layers that end the stages.

    Parameters
    ----------
    probe : Probe
    size : tuple of (int, int)
        Height and width of the image that was probed, pixels.

    Returns
    -------
    tuple of str
        As the network itself declares them where these are layers, else the last
        layer of each resolution.
    """
    declared = probe.declared_stages
    if declared and all(_is_offered(probe, name) for name in declared):
        return declared
    children = defaultdict(list)
    for layer in probe.layers.values():
        children[layer.parent].append(layer)
    last_of_scale: dict[int, str] = {}
    for unit in _units("", children, size, 0):
        last_of_scale[_scale(unit, size)] = unit.name
    if len(last_of_scale) < 2:
        blocks = _blocks(children)
        if len(blocks) > 1:
            return tuple(blocks)
    return tuple(last_of_scale[scale] for scale in sorted(last_of_scale))


def find_last_map(probe: Probe):
    """Return the name of the last layer before the neck with a map or tokens, or None.

    A map of one position is what a pooling left. Of layers inside of each other it is
    the outermost.
    """
    found = [
        layer
        for layer in probe.layers.values()
        if layer.order < probe.neck.order
        and layer.is_offered
        and layer.kind not in _RESIZERS
        and _n_positions(layer) > 1
    ]
    return max(found, key=lambda layer: layer.order).name if found else None


def _is_offered(probe, name):
    return name in probe.layers and probe.layers[name].is_offered


def _scale(layer: Layer, size):
    """Return how often the resolution was halved, or None where there is no map.

    Rounded, because convolutions without padding lose a few rows on the way.
    """
    if not layer.is_offered or layer.kind in _RESIZERS:
        return None
    n_positions = _n_positions(layer)
    if n_positions <= 1:
        return None
    return round(math.log2(size[0] * size[1] / n_positions) / 2)


def _n_positions(layer):
    """Return how many places of the image a layer tells apart."""
    if layer.layout == "NCHW":
        return layer.shape[1] * layer.shape[2]
    if layer.layout == "NHWC":
        return layer.shape[0] * layer.shape[1]
    return layer.shape[0] - layer.n_prefix_tokens if layer.layout == "NLC" else 0


def _units(parent, children, size, scale):
    """Yield the layers of one resolution each, in order of execution.

    A module that goes through several resolutions, such as VGG's ``features``, is
    opened; one that halves once, such as a ResNet's ``layer2``, is a unit.
    """
    for child in children[parent]:
        inside = {_scale(layer, size) for layer in children[child.name]} - {None}
        if len({s for s in inside if s > scale}) > 1:
            yield from _units(child.name, children, size, scale)
            scale = max(scale, *inside)
            continue
        own = _scale(child, size)
        if own is not None:
            yield child
            scale = max(scale, own)


def _blocks(children):
    """Return the largest family of siblings of one kind that hand on equal tokens."""
    families = defaultdict(list)
    for parent, layers in children.items():
        for layer in layers:
            if layer.is_offered and layer.layout == "NLC":
                families[parent, layer.kind, layer.shape].append(layer.name)
    # Blocks are made of smaller parts of which there may be as many: the outermost
    # family wins.
    return max(
        families.values(),
        key=lambda names: (len(names), -names[0].count(".")),
        default=[],
    )
