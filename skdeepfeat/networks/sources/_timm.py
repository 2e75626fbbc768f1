"""timm's networks."""

import copy
import functools
import logging
import math

import timm
import timm.models
from timm.data import resolve_data_config

from ..._utils._parameter_errors import choice_error
from ..._utils._preprocessing import Preprocessing
from .._installed_code import is_of_library
from ._downloaded_weights import HubWeights, UrlWeights
from ._install_weights import taken_for, with_own_head
from ._network_spec import NetworkSpec
from ._weights import Weights
from ._weights_sources import other_weights

logger = logging.getLogger(__name__)


@functools.cache
def list_names(tags=False):
    """Return the names of timm's networks, with or without the tags of weights."""
    return tuple(timm.list_models(include_tags=tags))


def knows(name):
    """Return whether timm has an architecture of this name, with any tag."""
    architecture = name.partition(".")[0]
    return architecture in list_names() or architecture in _renamed()


@functools.cache
def _renamed():
    return {old: new for old, new in timm.models.get_deprecated_models().items() if new}


def make_spec(name, weights, image_size, preprocessing):
    """Return the `NetworkSpec` of a timm network.

    Parameters
    ----------
    name : str
        Such as ``"resnet50"`` or ``"resnet50.a1_in1k"``.
    weights : str or Weights
        A str is ``"default"`` or a tag.
    image_size : tuple of (int, int) or None
    preprocessing : Preprocessing or None
        Instead of that of the weights.

    Returns
    -------
    NetworkSpec
    """
    architecture, _, tag = name.partition(".")
    if architecture in _renamed():
        # timm would warn whenever it builds the network.
        current = _renamed()[architecture]
        logger.info("timm has renamed %r to %r", name, current)
        architecture, _, current_tag = current.partition(".")
        tag = tag or current_tag
    if not is_of_library({"timm": architecture}):
        wanted = (
            "a network of timm, and not one that other code has registered there. Pass "
            f"the module instead: timm.create_model({architecture!r})"
        )
        raise choice_error("model", wanted, name)
    config = _find_config(architecture, tag, weights)
    if not isinstance(weights, Weights):
        weights = _weights_of(architecture, config)
    return make_spec_from_config(
        architecture, config, {}, weights, image_size, preprocessing
    )


def _find_config(architecture, tag, weights):
    configs = timm.models.get_arch_pretrained_cfgs(architecture)
    tags = [one.partition(".")[2] for one in configs if one.partition(".")[2]]
    wanted = tag
    if not isinstance(weights, Weights) and weights != "default":
        if tag and weights != tag:
            raise choice_error(
                "weights", f"'default', as 'model' says {architecture}.{tag}", weights
            )
        wanted = weights
    if wanted and wanted not in tags:
        parameter = "model" if tag else "weights"
        names = ", ".join(map(repr, ["default", *tags]))
        raise choice_error(
            parameter, f"a tag of {architecture!r}, one of {names}", wanted, tags
        )
    full = f"{architecture}.{wanted}" if wanted else architecture
    config = timm.get_pretrained_cfg(full)
    return config.to_dict() if config else {}


def _weights_of(architecture, config):
    label = config.get("tag") or "default"
    if config.get("hf_hub_id"):
        return HubWeights(config["hf_hub_id"], config.get("hf_hub_filename"), label)
    if config.get("url"):
        return UrlWeights(config["url"], label)
    wanted = f"{other_weights()} for {architecture!r}, for which timm has no weights"
    raise choice_error("weights", wanted, "default")


def make_spec_from_config(
    architecture, config, model_args, weights, image_size, preprocessing
):
    """Return the `NetworkSpec` of one of timm's architectures with a configuration.

    Parameters
    ----------
    architecture : str
        timm's name.
    config : dict
        A ``pretrained_cfg``.
    model_args : dict
        Arguments of the architecture.
    weights : Weights
    image_size, preprocessing
        As in `make_spec`.
    """
    own = preprocessing or preprocessing_from_config(config)
    wanted = own.with_crop(image_size) if image_size else own
    # timm would read these from the config. They are explicit, so that equal
    # descriptions mean equal networks. Position embeddings are interpolated when the
    # weights are installed.
    options = {"num_classes": config.get("num_classes", 1000), **model_args}
    if config.get("fixed_input_size"):
        options["img_size"] = wanted.crop
    build = functools.partial(build_network, architecture, config, options)
    tag = f".{config['tag']}" if config.get("tag") else ""
    return NetworkSpec(
        name=f"timm/{architecture}{tag}",
        model_name=architecture,
        architecture={
            "timm": architecture,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in options.items()},
        },
        build=build,
        install=functools.partial(_install, build),
        weights=weights,
        preprocessing=wanted,
        native_size=own.crop,
        has_pre_logits=True,
    )


def build_network(architecture, config, options, state_dict=None):
    """Return a network of timm, with random weights or with those of a state dict."""
    # A config that is a dict replaces timm's own, so the number of classes and the
    # input size are those of the tag. timm takes weights that were read elsewhere as
    # `state_dict` in it, and adapts their names and position embeddings.
    config = copy.copy(config)
    for key in ("url", "file", "hf_hub_id", "hf_hub_filename", "source"):
        config.pop(key, None)
    config["custom_load"] = False
    if state_dict is not None:
        config["state_dict"] = state_dict
    network = timm.create_model(
        architecture,
        pretrained=state_dict is not None,
        pretrained_cfg=config,
        **options,
    )
    network.pretrained_cfg.pop("state_dict", None)
    return network


def _install(build, file):
    bare = build()
    head = bare.pretrained_cfg.get("classifier") or ()
    head = (head,) if isinstance(head, str) else tuple(head)
    with taken_for(bare, file, head) as state_dict:
        state_dict, kept = with_own_head(bare, state_dict, head)
        return build(state_dict=state_dict), kept


def preprocessing_from_config(config):
    """Return timm's `Preprocessing` in evaluation.

    Parameters
    ----------
    config : dict
        A network's ``pretrained_cfg``. timm's defaults replace missing values.

    Returns
    -------
    Preprocessing
    """
    # With an empty dict, timm would try to find a model.
    data = resolve_data_config(pretrained_cfg=config or {"crop_mode": "center"})
    height, width = data["input_size"][1:]
    scaled = tuple(math.floor(side / data["crop_pct"]) for side in (height, width))
    mode = data["crop_mode"]
    mean = tuple(float(value) for value in data["mean"])
    return Preprocessing(
        resize=scaled if mode == "squash" else min(scaled),
        crop=(height, width),
        interpolation=data["interpolation"],
        mean=mean,
        std=tuple(float(value) for value in data["std"]),
        crop_mode="border" if mode == "border" else "center",
        fill=tuple(round(255 * v) for v in mean) if mode == "border" else (0, 0, 0),
    )
