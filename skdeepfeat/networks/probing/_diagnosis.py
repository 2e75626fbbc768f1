"""What is wrong with a network that cannot be examined, and what to pass instead.

The error suggests another image size or number of channels only after trying it.
"""

import inspect
import itertools
import math

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore

from ..._utils._parameter_errors import choice_error, first_line
from ..._utils._shown import shown
from .._modules import attribute_of

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CHANNELS = (1, 2, 4, 5, 6, 7, 8, 9, 10, 12, 13, 16)
_SIDES = (224, 256, 384, 32, 64, 96, 128, 160, 192, 299, 336, 512, 28, 48)

# Names of the image encoder in networks of images and text.
_IMAGE_PARTS = (
    "vision_model", "visual", "vision_tower", "vision_encoder", "image_encoder",
    "visual_encoder", "vision_backbone", "image_tower", "image_model", "vision",
)  # fmt: skip

# Hints by words in the text of an error.
_OF_ONE_TYPE = "All its parameters must have one type: model.float()"
_HINTS = {
    "device": "Tensors that are plain attributes do not move with a module: use "
    "register_buffer for them",
    "dtype": _OF_ONE_TYPE,
    "scalar type": _OF_ONE_TYPE,
    "should be the same": _OF_ONE_TYPE,
    "same type": _OF_ONE_TYPE,
    "Guard failed": "It was exported for a fixed shape: export it with dynamic_shapes",
}


def check_module(module, images="torch.zeros(2, 3, 224, 224)"):
    """Raise if a user's module cannot be examined at all.

    Parameters
    ----------
    module : Module
    images : str
        What to call it with.

    Raises
    ------
    ValueError
    """
    tensors = [*module.parameters(), *module.buffers()]
    if any(isinstance(one, UninitializedTensorMixin) for one in tensors):
        why = f"Lazy modules have none until they have run: call model({images}) first"
    elif any(one.device.type == "meta" for one in module.parameters()):
        why = "Some of its weights are on the meta device, which has no values: build "
        why += "it on the CPU"
    elif any(p.is_floating_point() and p.itemsize == 1 for p in module.parameters()):
        why = "Some weights have 8 bits, which few layers support: use model.float()"
    else:
        return
    wanted = f"a module with weights. {why}"
    raise choice_error("model", wanted, type(module).__name__)


def explain_failure(spec, size, error):
    """Return the error for a network that does not run on images of a size.

    Parameters
    ----------
    spec : NetworkSpec
    size : tuple of (int, int)
        Height and width, pixels.
    error : Exception
        What the network raised.

    Returns
    -------
    ValueError
    """
    name, native = spec.name, spec.native_size
    said = f"it said: {first_line(error)}"
    network = _build_failing(spec, size, error)
    if network is None:
        wanted = f"a network that can be built and copied ({said})"
        return choice_error("model", wanted, name)
    for channels, tried in _channels_to_try(network, size):
        if _error_of(network, channels, tried) is None:
            return _channels_error(name, channels)
    works = [
        tried
        for tried in _sizes_to_try(network, size)
        if _error_of(network, 3, tried) is None
    ]
    if not works and spec.module is None and native != size:
        works = [native]
    if works:
        sizes = " or ".join(str(h) if h == w else f"({h}, {w})" for h, w in works[:2])
        wanted = f"one that {name!r} can take, such as {sizes} ({said})"
        return choice_error("image_size", wanted, size)
    return choice_error("model", f"{_what_is_wrong(network, error)} ({said})", name)


def _build_failing(spec, size, error):
    """Return a network that fails in the same way, without values if possible.

    That is faster. None if the network cannot be built.
    """
    found = None
    for build in (spec.build_empty, spec.build_on_cpu):
        try:
            found = build().eval()
        except Exception:  # a user's network may raise anything
            continue
        if str(_error_of(found, 3, size)) == str(error):
            break
    return found


def _error_of(network, channels, size):
    """Return the exception that a network raises on an image, or None."""
    tensors = (p for p in network.parameters() if p.is_floating_point())
    like = next(tensors, torch.zeros(()))
    image = torch.zeros(2, channels, *size, dtype=like.dtype, device=like.device)
    try:
        with torch.no_grad():
            network(image)
    except Exception as error:  # a user's network may raise anything
        return error
    return None


def _first(network, *kinds):
    """Return the first module of some classes, or None."""
    return next((one for one in network.modules() if isinstance(one, kinds)), None)


def _channels_to_try(network, size):
    """Yield (channels, size), the most likely first."""
    convolution = _first(network, *_CONVOLUTIONS)
    declared = [] if convolution is None else [convolution.in_channels]
    likely = list(dict.fromkeys(c for c in (*declared, *_CHANNELS) if c not in (0, 3)))
    yield from zip(likely, itertools.repeat(size))
    # A network with a different number of channels may also need a different size.
    for channels in {*declared, 1} - {0, 3}:
        for side in _sizes_to_try(network, size, channels):
            yield channels, side


def _sizes_to_try(network, size, channels=3):
    """Return sizes: the one that fits the first linear layer, then the usual ones."""
    sides = list(_SIDES)
    if (linear := _first(network, nn.Linear)) is not None:
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
    """Return in words what `model` must be, and what this network is instead."""
    base = "a network that takes a batch of images of shape (n, 3, height, width)"
    for part in _IMAGE_PARTS:
        if isinstance(attribute_of(network, part), nn.Module):
            return f"{base}. Its image encoder does: pass model.{part}"
    needed, names, keywords = _arguments_of(network)
    embedding = _first(network, nn.Embedding)
    if "input_ids" in names or (embedding is not None and "Long, Int" in str(error)):
        return f"{base}. This one takes token ids, so it is a network of text"
    if names and names == keywords:
        return (
            f"{base} as its first argument. The forward of this one takes only keyword "
            "arguments: pass a module whose forward(images) calls it with "
            f"{names[0]}=images"
        )
    if len(needed) > 1:
        arguments = shown(", ".join(needed))
        return (
            f"{base} and nothing else. The forward of this one takes {arguments}: pass "
            "the part that computes features of images, or a module whose "
            "forward(images) calls it"
        )
    kind = type(_first(network, *_CONVOLUTIONS)).__name__
    if kind in ("Conv1d", "Conv3d"):
        return f"{base}. This one begins with a {kind}"
    for words, hint in _HINTS.items():
        if words in str(error):
            return f"{base}. {hint}"
    return (
        f"{base}. The forward of this one fails with such a batch: try "
        "model(torch.zeros(1, 3, 224, 224))"
    )


def _arguments_of(network):
    """Return the names of required, all and keyword-only arguments of `forward`."""
    try:
        parameters = inspect.signature(network.forward).parameters.values()
    except (TypeError, ValueError):
        return [], [], []
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        one.name for one in parameters if one.default is one.empty and one.kind in plain
    ]
    keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    return needed, [one.name for one in parameters], keywords
