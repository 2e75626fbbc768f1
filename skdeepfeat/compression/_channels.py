"""Groups of channels that can be removed from a network, found by running it.

Every tensor that runs through the network is followed from the layer that makes its
channels to the layers that read them. What lies between must treat each channel alone:
normalizations with running statistics, activations, poolings, depthwise convolutions.
Anything else prevents changes of the channels of its inputs.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..networks import change_layer, copy_network, is_convolution, is_linear
from ..training import named_tensors
from ._layers import owners_of_parameters

# By the name of the function, whatever its home: torch, torch.Tensor or
# torch.nn.functional. Their output has the shape of the input.
_ALONE = {
    "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_", "clamp_min",
    "silu", "gelu", "elu", "elu_", "celu", "selu", "leaky_relu", "leaky_relu_",
    "hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus", "mish", "threshold",
    "dropout", "dropout2d", "feature_dropout", "alpha_dropout", "contiguous", "clone",
    "detach", "float", "to",
}  # fmt: skip
# They change height and width.
_POOLS = {
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
    "interpolate", "pad",
}  # fmt: skip
# They leave out other axes, or change their order.
_MOVES = {"mean", "amax", "sum", "permute", "movedim", "transpose"}
_PRODUCTS = {"mul", "mul_", "__mul__", "__rmul__", "__imul__"}


@dataclass(eq=False)
class ChannelGroup:
    """Channels that can be removed one by one.

    Attributes
    ----------
    n_channels : int
    producers : list of str
        The layers that make the channels.
    followers : list of str
        Normalizations and depthwise convolutions behind them.
    consumers : list of (str, int)
        The layers that read the channels, and how many of their inputs, one behind the
        other, belong to a channel. More than 1 if maps were flattened.
    obstacle : str
        Why no channel can be removed; empty if they can.
    """

    n_channels: int
    producers: list = field(default_factory=list)
    followers: list = field(default_factory=list)
    consumers: list = field(default_factory=list)
    obstacle: str = ""


def find_channel_groups(body, images):
    """Return the groups of channels of a body.

    Parameters
    ----------
    body : TrainableNeck
        In evaluation mode.
    images : Tensor of uint8, shape (n_images, 3, height, width)

    Returns
    -------
    list of ChannelGroup
        In order of execution; those with an obstacle as well.
    """
    tracker = _Tracker(body.network)
    with torch.no_grad(), tracker:
        rows = body(images)
    tracker.block(rows, "the features are returned")
    groups = tracker.groups()
    for group in groups:
        if not (group.obstacle or group.consumers):
            group.obstacle = "no layer that reads the channels was found"
    free = [group for group in groups if not group.obstacle]
    # All at once first: most networks have no further obstacle.
    if _try(body, free, images):
        for group in free:
            group.obstacle = _try(body, [group], images)
    return groups


@torch.no_grad()
def _try(body, groups, images):
    """Say why a network does not compute the same without a channel of each, if so."""
    trial = copy_network(body)
    try:
        for group in groups:
            for name, n_each in group.consumers:
                layer = trial.network.get_submodule(name)
                weight = layer.weight.clone()
                weight[:, :n_each] = 0
                layer.weight = nn.Parameter(weight, requires_grad=False)
        # Channels that are not read may be removed.
        wanted = trial(images)
        for group in groups:
            kept = torch.arange(1, group.n_channels)
            remove_channels(trial.network, replace(group), kept)
        found = trial(images)
    except Exception as error:  # networks may raise anything
        return f"the network does not run without a channel ({str(error)[:80]})"
    # Many layers amplify rounding, and mistakes are large.
    tolerance = torch.finfo(wanted.dtype).eps ** 0.5
    if (found - wanted).abs().max() > tolerance * wanted.abs().max():
        return "the network computes something else without a channel"
    return ""


def remove_channels(network, group, kept):
    """Remove all channels of a group but some.

    Parameters
    ----------
    network : Module
        It is changed, and lists the changes.
    group : ChannelGroup
        Its number of channels is changed as well.
    kept : Tensor of int
        Ascending.
    """
    _take(network, group, kept, "resized")


def duplicate_channels(network, group, source, generator):
    """Duplicate channels of a group, such that the network computes the same.

    What reads a channel divides its weight among the duplicates in random parts, other
    ones for each of its outputs. In equal parts, as in the paper, duplicates would have
    equal gradients, and learn the same.

    Parameters
    ----------
    network : Module
        It is changed, and lists the changes.
    group : ChannelGroup
        Its number of channels is changed as well.
    source : Tensor of int, shape (n_channels,)
        The old channel of each new one. Each of the old ones is there.
    generator : torch.Generator
    """
    old = group.n_channels

    def share(weight):
        """Return what part of the old weight each input of a consumer has."""
        parts = torch.rand(len(weight), len(source), generator=generator) + 0.5
        total = torch.zeros(len(weight), old).index_add_(1, source, parts)
        return parts / total[:, source]

    _take(network, group, source, "widened", share)


def _take(network, group, channels, kind, share=None):
    """Give a group some of its channels, in some order."""
    for name in [*group.producers, *group.followers]:
        layer = network.get_submodule(name)
        tensors = {
            key: value.detach()[channels] if value.ndim else value.detach()
            for key, value in named_tensors(layer).items()
        }
        # Normalizations and depthwise convolutions have as many inputs as outputs.
        n_in = len(channels) if name in group.followers else layer.weight.shape[1]
        _change(network, name, kind, n_in, len(channels), tensors)
    for name, n_each in group.consumers:
        layer = network.get_submodule(name)
        columns = (channels[:, None] * n_each + torch.arange(n_each)).flatten()
        tensors = {key: value.detach() for key, value in named_tensors(layer).items()}
        weight = tensors["weight"][:, columns]
        if share is not None:
            parts = share(weight).repeat_interleave(n_each, 1)
            weight = weight * parts.reshape(*parts.shape, *[1] * (weight.ndim - 2))
        tensors["weight"] = weight
        _change(network, name, kind, len(columns), layer.weight.shape[0], tensors)
    group.n_channels = len(channels)


def _change(network, name, kind, n_in, n_out, tensors):
    change = {"layer": name, "kind": kind, "inputs": n_in, "outputs": n_out}
    change_layer(network, change, tensors)


class _Tag(NamedTuple):
    """Where a tensor has the channels of a group.

    Attributes
    ----------
    group : ChannelGroup
    axis : int
    n_each : int
        Positions along the axis for each channel.
    """

    group: ChannelGroup
    axis: int
    n_each: int = 1


class _Tracker(TorchFunctionMode):
    """Follows the channels of tensors through torch's functions."""

    def __init__(self, network):
        super().__init__()
        owners = owners_of_parameters(network).items()
        self._owners = {one: found[0] for one, found in owners if len(found) == 1}
        # The tensors are kept, so that no other gets their id.
        self._tags = {}
        self._kept = []
        self._groups = []
        self._used, self._reused = set(), set()
        # The group into which a group was merged.
        self._merged = {}

    def groups(self):
        """Return the groups found."""
        found = list(dict.fromkeys(map(self._root, self._groups)))
        for group in found:
            members = {*group.producers, *group.followers, *dict(group.consumers)}
            if members & self._reused:
                group.obstacle = group.obstacle or "a layer runs several times"
        return found

    def block(self, tensor, obstacle):
        """Prevent changes of the channels of a tensor, if it has any."""
        if (tag := self._tag(tensor)) is not None:
            tag.group.obstacle = tag.group.obstacle or obstacle

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        tagged = [one for one in _flat([args, kwargs]) if self._tag(one) is not None]
        tags = [self._tag(one) for one in tagged]
        shapes = [tuple(one.shape) for one in tagged]
        output = func(*args, **kwargs)
        if not _flat(output):
            return output  # such as a size
        handled = False
        if name in ("linear", "conv2d"):
            handled = self._layer(name, args, kwargs, output)
        elif len(tagged) == 1 and isinstance(output, torch.Tensor):
            handled = self._alone(func, args, kwargs, shapes[0], tags[0], output)
        elif len(tagged) == 2 and name in _PRODUCTS:
            handled = self._product(tags, output)
        if not handled:
            for tensor in tagged:
                self.block(tensor, f"{name} may mix the channels")
            for one in _flat(output):
                self._tags.pop(id(one), None)  # of a tensor changed in place
        return output

    # -- Functions. Each returns whether it knows what happens to the channels.

    def _layer(self, function, args, kwargs, output):
        inputs = args[0] if args else kwargs["input"]
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        owner = self._owners.get(id(weight))
        tag = self._tag(inputs)
        if owner is None or owner[2] != "weight":
            return False
        name, layer, _ = owner
        is_known = is_linear(layer) or is_convolution(layer)
        axis = output.ndim - 1 if function == "linear" else 1
        if not self._use(name) or not is_known or (tag and tag.axis != axis):
            return False
        if function == "conv2d" and layer.groups > 1:
            is_depthwise = layer.groups == layer.in_channels == layer.out_channels
            if tag is None or not is_depthwise or tag.n_each != 1:
                return False
            tag.group.followers.append(name)
            self._set(output, _Tag(tag.group, 1))
            return True
        if tag is not None:
            tag.group.consumers.append((name, tag.n_each))
        group = ChannelGroup(len(layer.weight), [name])
        self._groups.append(group)
        self._set(output, _Tag(group, axis))
        return True

    def _alone(self, func, args, kwargs, shape, tag, output):
        """Handle a function of one tensor with channels."""
        name, axis = func.__name__, tag.axis
        if name == "batch_norm":
            return self._norm(args, kwargs, tag, output)
        if name in _ALONE or name in _POOLS:
            keeps = output.ndim == len(shape) and output.shape[axis] == shape[axis]
            is_map = name in _ALONE or (axis == 1 and len(shape) == 4)
            return keeps and is_map and self._set(output, tag)
        if name in _PRODUCTS or name in ("add", "__add__", "div", "__truediv__", "sub"):
            # By a number; a tensor may have other values for each channel.
            others = [one for one in _flat([args[1:], kwargs]) if one.ndim]
            return not others and self._set(output, tag)
        if name in ("flatten", "reshape", "view", "squeeze"):
            return self._flatten(shape, tag, output)
        return name in _MOVES and self._move(func, args, kwargs, shape, tag, output)

    def _norm(self, args, kwargs, tag, output):
        owners = [self._owners.get(id(one)) for one in _flat([args, kwargs])]
        names = {owner[0] for owner in owners if owner is not None}
        if len(names) != 1 or tag.n_each != 1 or tag.axis != 1:
            return False
        [name] = names
        if not self._use(name):
            return False
        tag.group.followers.append(name)
        return self._set(output, tag)

    def _product(self, tags, output):
        """Merge the channels of a map and of a gate for each of them."""
        one, other = tags
        if one.group is other.group:
            return self._set(output, one)
        same = (one.axis, one.n_each, one.group.n_channels) == (
            other.axis, other.n_each, other.group.n_channels,
        )  # fmt: skip
        if not same:
            return False
        for name in ("producers", "followers", "consumers"):
            getattr(one.group, name).extend(getattr(other.group, name))
        one.group.obstacle = one.group.obstacle or other.group.obstacle
        self._merged[other.group] = one.group
        return self._set(output, one)

    def _flatten(self, shape, tag, output):
        """Handle maps whose positions come together, or behind their channel."""
        if tag.axis == 1 and output.shape[:2] == shape[:2] and output.ndim > 1:
            return self._set(output, tag)
        is_vector = tag.axis == 1 and output.ndim == 2 and len(output) == shape[0]
        if not is_vector:
            return False
        n_each = tag.n_each * (output.shape[1] // shape[1])
        return self._set(output, _Tag(tag.group, 1, n_each))

    def _move(self, func, args, kwargs, shape, tag, output):
        """Find the axis by its size in what the function makes of a small tensor."""
        sizes = [2 if axis == tag.axis else 1 for axis in range(len(shape))]
        others = {key: value for key, value in kwargs.items() if key != "input"}
        moved = func(torch.empty(sizes), *args[1:], **others).shape
        if 2 not in moved:
            return False
        return self._set(output, _Tag(tag.group, moved.index(2), tag.n_each))

    def _use(self, name):
        """Return whether it is the first time that a layer runs."""
        if name in self._used:
            self._reused.add(name)
            return False
        self._used.add(name)
        return True

    # -- Tags

    def _tag(self, tensor):
        tag = self._tags.get(id(tensor))
        return tag and tag._replace(group=self._root(tag.group))

    def _root(self, group):
        while group in self._merged:
            group = self._merged[group]
        return group

    def _set(self, tensor, tag):
        self._kept.append(tensor)
        self._tags[id(tensor)] = tag
        return True


def _flat(value):
    """Return the tensors in nested containers."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return []
    return [one for item in value for one in _flat(item)]
