"""torchvision's classification networks."""

import functools
import re
from collections import OrderedDict

import torchvision
from torch import nn

from ..._utils._parameter_errors import choice_error
from ._downloaded_weights import UrlWeights
from ._image_transforms import preprocessing_from_transform
from ._install_weights import install_state_dict, taken_for
from ._network_spec import NetworkSpec
from ._weights import Weights
from ._weights_sources import other_weights

# torchvision builds these two with an auxiliary head for training, and sets
# `transform_input` whenever it loads weights into them.
_INCEPTIONS = ("googlenet", "inception_v3")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# torchvision's DenseNet files have older names than its modules.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\.\w+)$")


@functools.cache
def list_names(tags=False):
    """Return the names of torchvision's classification networks, sorted."""
    return tuple(torchvision.models.list_models(module=torchvision.models))


def knows(name):
    """Return whether torchvision has a network of this name."""
    return name in list_names()


def names_of_files(files):
    """Return (network, weights) for each of `files` that torchvision would use."""
    return [
        (name, member.name)
        for name in (list_names() if files else ())
        for member in torchvision.models.get_model_weights(name)
        if UrlWeights(member.url, member.name).file_name in files
    ]


def make_spec(name, weights, image_size, preprocessing):
    """Return the `NetworkSpec` of a torchvision network.

    Parameters
    ----------
    name : str
        One of `list_names`.
    weights : str, WeightsEnum or Weights
        A str is ``"default"`` or the name of a member of the network's enumeration.
    image_size : tuple of (int, int) or None
    preprocessing : Preprocessing or None
        Instead of that of the default weights.

    Returns
    -------
    NetworkSpec
    """
    member = torchvision.models.get_model_weights(name).DEFAULT
    if not isinstance(weights, Weights):
        member = _find_member(name, weights)
        weights = UrlWeights(member.url, member.name, sha256_in_name=True)
    own = preprocessing or preprocessing_from_transform(member.transforms())
    wanted = own.with_crop(image_size) if image_size else own
    options = _builder_options(name, member, weights, wanted.crop)
    build = functools.partial(_build, name, options, weights.are_random)
    # One set of VGG-16 weights has NaN in its classifier.
    has_head = member.meta.get("categories") is not None
    return NetworkSpec(
        name=f"torchvision/{name}",
        model_name=name,
        architecture={"torchvision": name, **options},
        build=build,
        install=functools.partial(_install, build, has_head),
        weights=weights,
        preprocessing=wanted,
        native_size=own.crop,
        # SqueezeNet classifies with a convolution, followed by the pooling.
        classifier="classifier.1" if name.startswith("squeezenet") else None,
    )


def _find_member(name, weights):
    enumeration = torchvision.models.get_model_weights(name)
    if isinstance(weights, enumeration):
        return weights
    names = [member.name for member in enumeration]
    if isinstance(weights, str):
        short = weights.removeprefix(enumeration.__name__ + ".")
        if short.lower() == "default":
            return enumeration.DEFAULT
        if short in names:
            return enumeration[short]
    wanted = ", ".join(map(repr, ["default", *names]))
    wanted = f"one of {wanted} for {name!r}, {other_weights()}"
    raise choice_error("weights", wanted, weights, names)


def _builder_options(name, member, weights, size):
    """Return the arguments with which torchvision builds what the weights expect."""
    if name in _INCEPTIONS:
        return {"transform_input": not weights.are_random}
    if name.startswith("vit_"):
        native = tuple(member.meta["min_size"])
        if size != native and not weights.are_random:
            raise choice_error(
                "image_size",
                f"{native[0]} for torchvision's {name!r} with these weights, whose "
                "position embeddings are made for that size (timm's Vision "
                "Transformers, such as 'timm/vit_base_patch16_224', take others)",
                size,
            )
        if size[0] != size[1]:
            raise choice_error("image_size", f"a square for {name!r}", size)
        return {"image_size": size[0]}
    if name.startswith("maxvit"):
        return {"input_size": list(size)}
    return {}


def _build(name, options, is_random):
    if name in _INCEPTIONS:
        # The auxiliary heads run in training only. Without `init_weights`, torchvision
        # warns. It is slow, and not needed if weights follow.
        options = {**options, "aux_logits": False, "init_weights": is_random}
    return torchvision.models.get_model(name, weights=None, **options)


def _install(build, has_head, file):
    network = build()
    head = (_head(network),)
    with taken_for(network, file, head) as state_dict:
        renamed = OrderedDict(
            (_OLD_DENSENET.sub(r"\1\2", key), tensor)
            for key, tensor in state_dict.items()
            if not key.startswith(_AUXILIARY)
        )
        renamed._metadata = getattr(state_dict, "_metadata", None)
        kept = install_state_dict(network, renamed, head)
    return network, kept if has_head else ("classifier",)


def _head(network):
    """Return the name of the classifier: the last linear layer, or SqueezeNet's."""
    names = [n for n, m in network.named_modules() if isinstance(m, nn.Linear)]
    return names[-1] if names else "classifier.1"
