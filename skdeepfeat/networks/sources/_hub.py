"""timm's networks in repositories of the Hugging Face hub."""

import dataclasses
import functools
import itertools
import json
import re

import torch

from ..._utils._parameter_errors import choice_error
from ..._utils._random import seeded
from . import _timm
from ._downloaded_weights import HubWeights
from ._hub_config import fetch_hub_config
from ._weights import Weights
from ._weights_sources import check_default

_MAX_GROWTH = 8
# Anything else may be an address, and the part before an @ in it a password.
_REPOSITORY = re.compile(r"(?:[\w.-]+/)?[\w.-]+", re.ASCII)

_fetch_once = functools.cache(fetch_hub_config)


def make_spec(name, weights, image_size, preprocessing, hub_config=None):
    """Return the `NetworkSpec` of a timm network in a Hugging Face repository.

    Its ``config.json`` names the architecture, so this small file is downloaded if it
    is not on this machine.

    Parameters
    ----------
    name : str
        ``owner/repository`` or ``owner/repository@revision``.
    weights : "default" or Weights
    image_size : tuple of (int, int) or None
    preprocessing : Preprocessing or None
        Instead of that of the repository.
    hub_config : dict, default=None
        The content of the file if it is known, as `read_hub_config` returns it.

    Returns
    -------
    NetworkSpec

    Raises
    ------
    ValueError
        If this is not the name of a repository.
    """
    if not _REPOSITORY.fullmatch(name.partition("@")[0]):
        wanted = "'hf-hub:OWNER/NAME' or 'hf-hub:OWNER/NAME@REVISION' for the hub"
        raise choice_error("model", wanted, f"hf-hub:{name}")
    if hub_config is None or hub_config["repository"] != name:
        hub_config = _fetch_once(name)
    config, model_args = hub_config["pretrained_cfg"], hub_config["model_args"]
    if not isinstance(weights, Weights):
        check_default(weights, f"hf-hub:{name}")
        weights = HubWeights(name, config.get("hf_hub_filename"))
    architecture = hub_config["architecture"]
    spec = _timm.make_spec_from_config(
        architecture, config, model_args, weights, image_size, preprocessing
    )
    if model_args:
        _refuse_larger(name, json.dumps(hub_config, sort_keys=True))
    short = name.partition("@")[0].rpartition("/")[2]
    return dataclasses.replace(
        spec,
        name=f"hf-hub:{name}",
        model_name="".join(c if c.isalnum() else "_" for c in short),
        hub_config=hub_config,
    )


@functools.cache
def _refuse_larger(name, hub_config):
    """Refuse arguments that make the network much larger than timm's own."""
    described = json.loads(hub_config)
    architecture, config = described["architecture"], described["pretrained_cfg"]
    plain = {"num_classes": config.get("num_classes", 1000)}
    sizes = []
    for options in (plain, plain | described["model_args"]):
        try:
            with seeded(0), torch.device("meta"):
                network = _timm.build_network(architecture, config, options)
        except Exception as error:  # timm checks few arguments
            raise choice_error(
                "model",
                "a repository on the hub whose config.json timm can build (it said: "
                f"{str(error)[:200]})",
                f"hf-hub:{name}",
            ) from error
        # Position tables, which are buffers, can be larger than all weights.
        tensors = itertools.chain(network.parameters(), network.buffers())
        sizes.append(sum(tensor.numel() for tensor in tensors))
    if sizes[1] > _MAX_GROWTH * sizes[0]:
        raise choice_error(
            "model",
            f"a repository whose config.json makes {architecture!r} at most "
            f"{_MAX_GROWTH} times as large as timm does ({sizes[1]:,} numbers instead "
            f"of {sizes[0]:,})",
            f"hf-hub:{name}",
        )
