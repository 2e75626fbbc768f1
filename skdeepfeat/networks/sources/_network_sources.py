"""From the `model` parameter to the record of a network.

A source of networks is the module `_NAME`, with these functions:

- ``list_names(tags)``: the names that `list_models` shows;
- ``knows(name)``: whether it has a network of this name;
- ``make_spec(name, weights, image_size, preprocessing)``: its `NetworkSpec`.

The hub and a user's module have no names to list, so they are not in `SOURCES`.
"""

import fnmatch
import importlib

from torch import nn

from ..._utils._choices import SOURCES
from ..._utils._parameter_errors import choice_error, look_up
from . import _user_module
from ._preprocessing_parameter import read_image_size, read_preprocessing
from ._weights import Weights
from ._weights_sources import FILE_ENDINGS, read_weights

HUB_PREFIXES = ("hf-hub:", "hf_hub:")


def make_spec(
    model,
    weights="default",
    image_size=None,
    preprocessing=None,
    random_state=0,
    needs_weights=True,
    hub_config=None,
):
    """Return the `NetworkSpec` that the parameters describe. No weights are loaded.

    Parameters
    ----------
    model : str or Module
        A name (see `list_models`), ``"hf-hub:OWNER/NAME"`` or a module.
    weights : str or PathLike, default="default"
        ``"default"``, a name that the source of the network knows
        (``"IMAGENET1K_V1"``, a timm tag), a file (``.safetensors``, ``.pth``) or
        ``"random"``.
    image_size : int, (int, int) or None, default=None
        Pixels, instead of the weights' own size.
    preprocessing : Preprocessing, dict, transform or None, default=None
        For modules, weights files and random weights.
    random_state : int, default=0
        The seed of ``weights="random"``.
    needs_weights : bool, default=True
        Whether a weights file must exist. False if `Neck.with_network` will replace
        the weights.
    hub_config : dict, default=None
        The `hub_config` of an earlier `NetworkSpec`, so that the configuration of a hub
        repository is not downloaded again.

    Returns
    -------
    NetworkSpec

    Raises
    ------
    TypeError, ValueError
        With the parameter's name first.
    WeightsNotFoundError
        If a weights file is missing, or the configuration of a hub repository is not
        on this machine and cannot be downloaded.
    """
    size = read_image_size(image_size)
    if isinstance(model, nn.Module):
        own = read_preprocessing(preprocessing)
        return _user_module.make_spec(model, weights, size, own)
    if not isinstance(model, str):
        wanted = "a name that list_models shows, or a torch.nn.Module"
        raise choice_error("model", wanted, model, error=TypeError)
    weights = read_weights(weights, random_state, needs_weights)
    is_named = not isinstance(weights, Weights)
    try:
        own = read_preprocessing(preprocessing)
    except (TypeError, ValueError) as error:
        if not is_named:
            raise
        raise _not_with_names(preprocessing) from error
    arguments = weights, size, None if is_named else own
    if model.startswith(HUB_PREFIXES) and model not in HUB_PREFIXES:
        spec = _module_of("hub").make_spec(
            model.partition(":")[2], *arguments, hub_config
        )
    else:
        source, name = _find(model)
        spec = source.make_spec(name, *arguments)
    if is_named and own is not None:
        wanted = own.with_crop(size) if size else own
        if wanted != spec.preprocessing:
            raise _not_with_names(preprocessing)
    return spec


def _not_with_names(preprocessing):
    return choice_error(
        "preprocessing",
        "None with named weights, which have their own ('image_size' changes the size)",
        preprocessing,
    )


def _module_of(source):
    """Return the module of a source. timm and torchvision are slow to import."""
    return importlib.import_module(f"._{source}", __package__)


def _find(model):
    """Return a network's source, and the name that it has there."""
    prefix, _, name = model.rpartition("/")
    is_file = model.lower().endswith(FILE_ENDINGS)
    for key in () if is_file else SOURCES:
        if prefix in ("", key) and _module_of(key).knows(name):
            return _module_of(key), name
    # Nearest first. A name that several sources have is shown without a source.
    bare = name.partition(".")[0]
    plain = {one for key in SOURCES for one in _module_of(key).list_names()}
    prefixed = " or ".join(f"'{key}/NAME'" for key in SOURCES)
    wanted = f"a name that list_models shows (bare, {prefixed}), 'hf-hub:OWNER/NAME' "
    wanted += "or a torch.nn.Module"
    if is_file:
        wanted += ". Pass a weights file as 'weights', and a network's name as 'model'"
    raise choice_error(
        "model",
        wanted,
        model,
        sorted(plain, key=lambda one: (one[:1] != bare[:1], one)),
    )


def list_models(pattern=None, *, source=None, tags=False):
    """List the names of networks for the parameter `model`.

    Nothing is downloaded. The list does not show which weights are already on this
    machine: the weights of most networks are downloaded when they are first needed.

    Parameters
    ----------
    pattern : str, default=None
        A shell pattern such as ``"resnet*"``, case-insensitive. It may match the whole
        name, or the part after the source.
    source : {"embedded", "torchvision", "timm"}, default=None
        List only the networks of one source. By default, those of all sources are
        listed.
    tags : bool, default=False
        Whether to list timm's networks once for each set of weights, such as
        ``"timm/resnet50.a1_in1k"``.

    Returns
    -------
    list of str
        First the embedded networks whose packages are installed, then torchvision's,
        then timm's. A timm network is listed as ``"timm/NAME"`` if the bare name means
        a network of another source.

    Raises
    ------
    ValueError
        If there is no such source.

    Examples
    --------
    >>> from skdeepfeat.networks import list_models
    >>> list_models("resnet1*", source="torchvision")
    ['resnet101', 'resnet152', 'resnet18']
    """
    look_up(dict.fromkeys([None, *SOURCES]), source, "source")
    found, earlier = [], []
    for key in SOURCES:
        module = _module_of(key)
        if source in (None, key):
            for name in module.list_names(tags):
                bare = name.partition(".")[0]
                is_taken = any(other.knows(bare) for other in earlier)
                found.append(f"{key}/{name}" if is_taken else name)
        earlier.append(module)
    if pattern is None:
        return found
    pattern = pattern.lower()
    return [
        name
        for name in found
        if any(
            fnmatch.fnmatchcase(form, pattern)
            for form in (name.lower(), name.lower().rpartition("/")[2])
        )
    ]
