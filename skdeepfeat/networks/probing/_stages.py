"""The stages of a network, numbered as by timm's ``out_indices``.

Stage 0 is the first resolution (that of the stem), -1 the last. In networks with one
resolution, each block is a stage.
"""

import math
from collections import defaultdict

from .._layer_changes import changes_of
from ..running._layer import Layer
from ._probe import probe_spec

# These bring a map of any stage to a fixed size.
_RESIZERS = ("AdaptiveAvgPool2d", "AdaptiveMaxPool2d")


def stages_of(spec) -> tuple[str, ...]:
    """Return the names of the layers that end a network's stages.

    They are found at the size for which the weights were made, or at the wanted one if
    the network takes no other, as timm's transformers and some users' modules.

    Parameters
    ----------
    spec : NetworkSpec

    Returns
    -------
    tuple of str
        Those that the network declares if they are layers, else the last layer of each
        resolution.
    """
    size, wanted = spec.native_size, spec.preprocessing.crop
    if "img_size" not in spec.architecture:
        try:
            return _find_stages(spec, probe_spec(spec, size, size == wanted), size)
        except ValueError:
            if size == wanted:
                raise
    return _find_stages(spec, probe_spec(spec, wanted), wanted)


def _find_stages(spec, probe, size):
    declared, layers = probe.declared_stages, probe.layers
    if declared and all(n in layers and layers[n].is_offered for n in declared):
        return declared
    # A replaced layer counts as the original one.
    replaced = {change["layer"] for change in changes_of(spec.module)}
    children = defaultdict(list)
    for layer in layers.values():
        if layer.parent not in replaced:
            children[layer.parent].append(layer)
    last_of_scale: dict[int, str] = {}
    for unit in _units("", children, size, 0):
        last_of_scale[_scale(unit, size)] = unit.name
    if len(last_of_scale) < 2:
        blocks = _blocks(children)
        if len(blocks) > 1:
            return tuple(blocks)
    return tuple(last_of_scale[scale] for scale in sorted(last_of_scale))


def last_map_of(spec, probe, before=None) -> Layer | None:
    """Return the last layer with a map or tokens before another layer, or None.

    It is found at the size for which the weights were made, because the last map of a
    small image may have a single position. Of layers inside each other it is the
    outermost.

    Parameters
    ----------
    spec : NetworkSpec
    probe : Probe
        At the wanted size, from which the result is taken.
    before : Layer or None, default=None
        None means the neck.
    """
    end = probe.neck.order if before is None else before.order
    try:
        native = probe_spec(spec, spec.native_size, explains=False)
    except ValueError:
        native = probe
    found = [one for one in native.layers.values() if one.order < end and _is_map(one)]
    last = max(found, key=lambda layer: layer.order, default=None)
    return last and probe.layers[last.name]


def _is_map(layer):
    """Return whether a layer has positions. A pooling leaves one, or a fixed number."""
    return layer.is_offered and layer.kind not in _RESIZERS and layer.n_positions > 1


def _scale(layer: Layer, size):
    """Return how often the resolution was halved, or None if there is no map.

    It is rounded, because convolutions without padding lose a few rows.
    """
    if not _is_map(layer):
        return None
    return round(math.log2(size[0] * size[1] / layer.n_positions) / 2)


def _units(parent, children, size, scale):
    """Yield layers of one resolution each, in order of execution.

    Of a module with several resolutions, such as VGG's ``features``, the parts are
    yielded. A module that halves the resolution once, such as a ResNet's ``layer2``, is
    yielded itself.
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
    """Return the largest family of siblings of one kind and shape of tokens."""
    families = defaultdict(list)
    for parent, layers in children.items():
        for layer in layers:
            if layer.is_offered and layer.layout == "NLC":
                families[parent, layer.kind, layer.shape].append(layer.name)
    # Parts of blocks may be as numerous as blocks. The outermost family is returned.
    return max(
        families.values(),
        key=lambda names: (len(names), -names[0].count(".")),
        default=[],
    )
