"""timm's networks, by name or from the Hugging Face hub."""

import copy
import dataclasses
import functools
import json
import logging
import math

import timm
import timm.models
import torch
from timm.data import resolve_data_config

from ..._utils._preprocessing import Preprocessing
from ..._utils._random import seeded
from .._parameter_errors import choice_error
from ._downloaded_weights import HubWeights, UrlWeights
from ._hub_config import fetch_hub_config
from ._install_weights import taken_for, with_own_head
from ._network_spec import NetworkSpec

__all__ = [
    "is_known",
    "list_names",
    "make_hub_spec",
    "make_spec",
    "preprocessing_from_config",
]

logger = logging.getLogger(__name__)

_MAX_GROWTH = 8


@functools.cache
def list_names(tags=False):
    """Return the names of timm's networks, with their weights' tags or without."""
    return tuple(timm.list_models(include_tags=tags))


def is_known(name):
    """Whether timm has an architecture of this name, whatever the tag."""
    architecture = name.partition(".")[0]
    return architecture in list_names() or architecture in _deprecated()


@functools.cache
def _deprecated():
    return {old: new for old, new in timm.models.get_deprecated_models().items() if new}


def make_spec(name, weights, image_size, preprocessing):
    """Return the `NetworkSpec` of a timm network.

    Parameters
    ----------
    name : str
        Such as ``"resnet50"`` or ``"resnet50.a1_in1k"``.
    weights : str, FileWeights or RandomWeights
        A str is ``"default"`` or a tag.
    image_size : tuple of (int, int) or None
    preprocessing : Preprocessing or None
        Instead of that of the weights.

    Returns
    -------
    NetworkSpec
    """
    architecture, _, tag = name.partition(".")
    if architecture in _deprecated():
        # timm's own mapping warns at every construction.
        current = _deprecated()[architecture]
        logger.info("timm calls %r %r now", name, current)
        architecture, _, current_tag = current.partition(".")
        tag = tag or current_tag
    config = _find_config(architecture, tag, weights)
    if isinstance(weights, str):
        weights = _weights_of(architecture, config)
    full_name = f"timm/{architecture}.{config['tag']}" if config.get("tag") else None
    return _make(
        name=full_name or f"timm/{architecture}",
        model_name=architecture,
        architecture=architecture,
        config=config,
        model_args={},
        weights=weights,
        image_size=image_size,
        preprocessing=preprocessing,
    )


def make_hub_spec(name, weights, image_size, preprocessing, hub_config=None):
    """Return the `NetworkSpec` of a timm network in a Hugging Face repository.

    Its small ``config.json`` says what network it is, so that file is read, and
    fetched where it is not on this machine yet.

    Parameters
    ----------
    name : str
        ``owner/repository`` or ``owner/repository@revision``.
    weights, image_size, preprocessing
        As for `make_spec`; there are no tags.
    hub_config : dict, default=None
        That file's content where it is known, as `read_hub_config` returns it.

    Returns
    -------
    NetworkSpec
    """
    if hub_config is None or hub_config["repository"] != name:
        hub_config = _hub_config(name)
    architecture = hub_config["architecture"]
    config, model_args = hub_config["pretrained_cfg"], hub_config["model_args"]
    if isinstance(weights, str):
        if weights != "default":
            raise choice_error(
                "weights", f"'default' for 'hf-hub:{name}', a file or None", weights
            )
        weights = HubWeights(name, config.get("hf_hub_filename"))
    short = name.partition("@")[0].rpartition("/")[2]
    spec = _make(
        name=f"hf-hub:{name}",
        model_name="".join(c if c.isalnum() else "_" for c in short),
        architecture=architecture,
        config=config,
        model_args=model_args,
        weights=weights,
        image_size=image_size,
        preprocessing=preprocessing,
    )
    if model_args:
        _refuse_larger(name, json.dumps(hub_config, sort_keys=True))
    return dataclasses.replace(spec, hub_config=hub_config)


_hub_config = functools.cache(fetch_hub_config)


@functools.cache
def _refuse_larger(name, hub_config):
    """Refuse arguments that make much more of an architecture than timm does."""
    described = json.loads(hub_config)
    architecture, config = described["architecture"], described["pretrained_cfg"]
    plain = {"num_classes": config.get("num_classes", 1000)}
    sizes = []
    for options in (plain, plain | described["model_args"]):
        try:
            with seeded(0), torch.device("meta"):
                network = _build(architecture, config, options)
        except Exception as error:  # timm checks few arguments
            raise choice_error(
                "model",
                "a repository on the hub whose config.json timm can build (it said: "
                f"{str(error)[:200]})",
                f"hf-hub:{name}",
            ) from error
        sizes.append(sum(parameter.numel() for parameter in network.parameters()))
    if sizes[1] > _MAX_GROWTH * sizes[0]:
        raise choice_error(
            "model",
            f"a repository whose config.json makes {architecture!r} at most "
            f"{_MAX_GROWTH} times as large as timm does (it makes {sizes[1]:,} "
            f"parameters of {sizes[0]:,})",
            f"hf-hub:{name}",
        )


def _find_config(architecture, tag, weights):
    names = [t for t in _tags(architecture) if t]
    wanted = tag
    if isinstance(weights, str) and weights != "default":
        if tag and weights != tag:
            raise choice_error(
                "weights", f"'default', as 'model' says {architecture}.{tag}", weights
            )
        wanted = weights
    if wanted and wanted not in names:
        parameter = "model" if tag else "weights"
        shown = ", ".join(map(repr, ["default", *names]))
        raise choice_error(
            parameter, f"a tag of {architecture!r}, one of {shown}", wanted, names
        )
    full = f"{architecture}.{wanted}" if wanted else architecture
    config = timm.get_pretrained_cfg(full)
    return config.to_dict() if config else {}


def _tags(architecture):
    configs = timm.models.get_arch_pretrained_cfgs(architecture)
    return [name.partition(".")[2] for name in configs]


def _weights_of(architecture, config):
    label = config.get("tag") or "default"
    if config.get("hf_hub_id"):
        return HubWeights(config["hf_hub_id"], config.get("hf_hub_filename"), label)
    if config.get("url"):
        return UrlWeights(config["url"], label)
    raise choice_error(
        "weights",
        f"a file or None for {architecture!r}, for which timm has no weights",
        "default",
    )


def _make(
    *,
    name,
    model_name,
    architecture,
    config,
    model_args,
    weights,
    image_size,
    preprocessing,
):
    own = preprocessing or preprocessing_from_config(config)
    wanted = own.with_crop(image_size) if image_size else own
    # What timm would read off the config is said explicitly, so that equal
    # descriptions mean equal networks. Position embeddings are interpolated when the
    # weights are put in.
    options = {"num_classes": config.get("num_classes", 1000), **model_args}
    if config.get("fixed_input_size"):
        options["img_size"] = wanted.crop
    build = functools.partial(_build, architecture, config, options)
    return NetworkSpec(
        name=name,
        model_name=model_name,
        architecture={
            "timm": architecture,
            **{key: _jsonable(value) for key, value in options.items()},
        },
        build=build,
        install=functools.partial(_install, build),
        weights=weights,
        preprocessing=wanted,
        native_size=own.crop,
        has_pre_logits=True,
    )


def _jsonable(value):
    return list(value) if isinstance(value, tuple) else value


def _build(architecture, config, options, state_dict=None):
    # A config given as a dict replaces timm's own, so that the tag's number of classes
    # and input size are built. The state dict in it is how timm takes weights that
    # were read elsewhere; it adapts their names and position embeddings.
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
    """Return the `Preprocessing` that timm does in evaluation.

    Parameters
    ----------
    config : dict
        A network's ``pretrained_cfg``. What it lacks is taken from timm's defaults.

    Returns
    -------
    Preprocessing
    """
    # An empty dict makes timm ask for a model.
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
