"""What is wrong with a network that cannot be examined, and what to pass instead.

The error names the size or the number of channels only if another one works; both are
tried.
"""

import inspect
import itertools
import math

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin

from ..._utils._shown import shown
from .._parameter_errors import choice_error

__all__ = ["check_module", "explain_failure"]

_CHANNELS = (1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 16)
_SIDES = (224, 256, 384, 32, 64, 96, 128, 160, 192, 299, 336, 512, 28, 48)

# What networks of images and text call their part for images.
_IMAGE_PARTS = (
    "vision_model", "visual", "vision_tower", "vision_encoder", "image_encoder",
    "visual_encoder", "vision_backbone", "image_tower", "image_model", "vision",
)  # fmt: skip

# Hints by what is in the words of an error.
_HINTS = {
    "device": "Tensors that are plain attributes do not move with a module: use "
    "register_buffer for them",
    "dtype": "All its parameters must have one type: model.float()",
    "scalar type": "All its parameters must have one type: model.float()",
    "should be the same": "All its parameters must have one type: model.float()",
    "same type": "All its parameters must have one type: model.float()",
}


def check_module(module):
    """Raise if a user's module is of a kind that cannot be examined at all.

    Raises
    ------
    ValueError
    """
    name = type(module).__name__
    tensors = [*module.parameters(), *module.buffers()]
    if any(isinstance(one, UninitializedTensorMixin) for one in tensors):
        raise choice_error(
            "model",
            "a module with weights. Lazy modules have none until they have run: call "
            "model(torch.zeros(2, 3, 224, 224)) before",
            name,
        )
    if any(one.device.type == "meta" for one in module.parameters()):
        raise choice_error(
            "model",
            "a module with weights. Some of this one are on the meta device, which "
            "holds no values: build it on the CPU",
            name,
        )


def explain_failure(name, size, error, builds, native=None):
    """Return the error for a network that did not take images of a size.

    Parameters
    ----------
    name : str
        The network's.
    size : tuple of (int, int)
        Height and width, pixels.
    error : Exception
        What it raised.
    builds : sequence of callable
        Ways to get the network, without numbers and with.
    native : tuple of (int, int), default=None
        The size that a known network is made for, if it may be built for one size.

    Returns
    -------
    ValueError
    """
    said = f"it said: {_first_line(error)}"
    network, runs = _find_runner(builds, size, error)
    if network is None:
        return choice_error(
            "model", f"a network that can be built and copied ({said})", name
        )
    for channels, side in _channels_to_try(network, size):
        if runs(channels, side):
            return _channels_error(name, channels)
    works = [side for side in _sizes_to_try(network, size) if runs(3, side)]
    if not works and native not in (None, size):
        works = [native]
    if works:
        shown = " or ".join(str(h) if h == w else f"({h}, {w})" for h, w in works[:2])
        wanted = f"one that {name!r} can take, such as {shown} ({said})"
        return choice_error("image_size", wanted, size)
    return choice_error("model", f"{_what_is_wrong(network, error)} ({said})", name)


def _first_line(error):
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first if len(first) <= 200 else f"{first[:200]} ..."


def _find_runner(builds, size, error):
    """Return a network, and ``runs(channels, size) -> bool``.

    Without numbers where that fails in the same way, because it is faster.
    """
    found = None
    for build in builds:
        try:
            network = build().eval()
        except Exception:  # networks are anybody's code
            continue
        found = network
        if str(_error_of(network, 3, size)) == str(error):
            break
    if found is None:
        return None, None
    return found, lambda channels, side: _error_of(found, channels, side) is None


def _error_of(network, channels, size):
    tensors = (p for p in network.parameters() if p.is_floating_point())
    like = next(tensors, torch.zeros(()))
    image = torch.zeros(2, channels, *size, dtype=like.dtype, device=like.device)
    try:
        with torch.no_grad():
            network(image)
    except Exception as error:  # networks are anybody's code
        return error
    return None


def _convolutions(network):
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return [one for one in network.modules() if isinstance(one, kinds)]


def _first_linear(network):
    linear = (one for one in network.modules() if isinstance(one, nn.Linear))
    return next(linear, None)


def _channels_to_try(network, size):
    """Yield (channels, size), the likeliest first."""
    declared = [one.in_channels for one in _convolutions(network)[:1]]
    likely = list(dict.fromkeys(c for c in (*declared, *_CHANNELS) if c != 3))
    yield from zip(likely, itertools.repeat(size))
    # A network of another number of channels may want another size as well.
    for channels in {*declared, 1} - {3}:
        for side in _sizes_to_try(network, size, channels):
            yield channels, side


def _sizes_to_try(network, size, channels=3):
    """Return sizes, those that the first linear layer wants before the usual ones."""
    sides = list(_SIDES)
    if (linear := _first_linear(network)) is not None and channels:
        side = math.isqrt(linear.in_features // channels)
        if side and channels * side * side == linear.in_features:
            sides.insert(0, side)
    return [(side, side) for side in dict.fromkeys(sides) if (side, side) != size]


def _channels_error(name, channels):
    first = "torchvision.transforms.v2.Grayscale()"
    if channels != 1:
        first = f"torch.nn.Conv2d(3, {channels}, 1)"
    return choice_error(
        "model",
        f"a network of images with 3 channels; this one takes {channels}. Images are "
        "RGB here, and other numbers of channels are not supported. Put a layer before "
        f"it that turns 3 channels into {channels}, such as "
        f"torch.nn.Sequential({first}, model)",
        name,
    )


def _what_is_wrong(network, error):
    """Return what `model` must be, in words, by what can be seen of the network."""
    base = "a network that takes a batch of images of shape (n, 3, height, width)"
    for part in _IMAGE_PARTS:
        if isinstance(getattr(network, part, None), nn.Module):
            return f"{base}. Its image encoder does: pass model.{part}"
    needed, names = _arguments_of(network)
    embeds = any(isinstance(one, nn.Embedding) for one in network.modules())
    if "input_ids" in names or (embeds and "Long, Int" in str(error)):
        return f"{base}. This one takes token ids, so it is a network of text"
    if len(needed) > 1:
        arguments = shown(", ".join(needed))
        return (
            f"{base} and nothing else. The forward of this one takes {arguments}: pass "
            "the part that computes features of images, or a module whose "
            "forward(images) calls it"
        )
    dimensions = {type(one).__name__ for one in _convolutions(network)[:1]}
    if dimensions & {"Conv1d", "Conv3d"}:
        return f"{base}. This one begins with a {dimensions.pop()}"
    words = str(error)
    for sign, hint in _HINTS.items():
        if sign in words:
            return f"{base}. {hint}"
    return (
        f"{base}. The forward of this one fails with such a batch: try "
        "model(torch.zeros(1, 3, 224, 224))"
    )


def _arguments_of(network):
    """Return the arguments that `forward` needs, and the names of all it has."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return [], []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        one.name for one in parameters if one.default is one.empty and one.kind in plain
    ]
    return needed, [one.name for one in parameters]
