"""From the `model` parameter to the record of a network."""

import fnmatch
import functools

from torch import nn

from .._parameter_errors import choice_error
from . import _embedded, _timm, _torchvision, _user_module
from ._offline import explain_downloads
from ._preprocessing_parameter import read_image_size, read_preprocessing, read_weights
from ._weights_sources import FileWeights, RandomWeights

__all__ = ["list_models", "make_spec"]

_SOURCES = ("embedded", "torchvision", "timm")


def make_spec(
    model,
    weights,
    image_size,
    preprocessing,
    random_state,
    needs_weights=True,
    hub_config=None,
):
    """Return the `NetworkSpec` that the parameters describe. Nothing is loaded.

    Parameters
    ----------
    model : str or Module
    weights : str, PathLike, WeightsEnum or None
    image_size : int, pair of ints or None
    preprocessing : Preprocessing, dict, transform or None
    random_state : int
    needs_weights : bool, default=True
        Whether a weights file must be there.
    hub_config : dict, default=None
        What is known of the repository that an ``"hf-hub:"`` name means, as a spec's
        `hub_config`. It is not asked for again.

    Returns
    -------
    NetworkSpec

    Raises
    ------
    TypeError, ValueError
        With the parameter's name first.
    WeightsNotFoundError
        If a weights file is not there, or a hub name's configuration is neither here
        nor to be downloaded.
    """
    size = read_image_size(image_size)
    if isinstance(model, nn.Module):
        own = read_preprocessing(preprocessing)
        return _user_module.make_spec(model, weights, size, own)
    if not isinstance(model, str):
        wanted = "a name that list_models shows, or a torch.nn.Module"
        raise choice_error("model", wanted, model, error=TypeError)
    weights = read_weights(weights, random_state, needs_weights)
    is_named = not isinstance(weights, (FileWeights, RandomWeights))
    try:
        own = read_preprocessing(preprocessing)
    except (TypeError, ValueError) as error:
        if not is_named:
            raise
        raise _not_with_names(preprocessing) from error
    make, name = _find(model)
    if hub_config is not None and make is _timm.make_hub_spec:
        make = functools.partial(make, hub_config=hub_config)
    with explain_downloads():
        spec = make(name, weights, size, None if is_named else own)
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


def _find(model):
    """Return the source's `make_spec` and its own name for a network."""
    for prefix in ("hf-hub:", "hf_hub:"):
        if model.startswith(prefix) and model != prefix:
            return _timm.make_hub_spec, model.removeprefix(prefix)
    source, _, name = model.rpartition("/")
    bare = not source
    if bare and name in _embedded.NAMES:
        return _embedded.make_spec, name
    if (bare or source == "torchvision") and name in _torchvision.list_names():
        return _torchvision.make_spec, name
    if (bare or source == "timm") and _timm.is_known(name):
        return _timm.make_spec, name
    raise choice_error(
        "model",
        "a name that list_models shows (bare, 'torchvision/NAME' or 'timm/NAME'), "
        "'hf-hub:OWNER/NAME' or a torch.nn.Module",
        model,
        _candidates(name.partition(".")[0]),
    )


def _candidates(name):
    # Nearest first: the plain name is shown where several sources have it.
    plain = [*_embedded.NAMES, *_torchvision.list_names(), *_timm.list_names()]
    return sorted(set(plain), key=lambda one: (one[:1] != name[:1], one))


def list_models(pattern=None, *, source=None, tags=False):
    """List the networks that can be given as `model`.

    Nothing is downloaded for it, and it does not say what has been: most networks'
    weights are fetched when they are needed first.

    Parameters
    ----------
    pattern : str, default=None
        A shell pattern such as ``"resnet*"``, without regard to case. It may match
        the whole name or what follows the source.
    source : {"embedded", "torchvision", "timm"}, default=None
        Only the networks of one source. By default those of all.
    tags : bool, default=False
        Whether timm's networks are listed once for each set of weights, such as
        ``"timm/resnet50.a1_in1k"``.

    Returns
    -------
    list of str
        Embedded networks first (those whose packages are installed), then
        torchvision's, then timm's. A timm network whose bare name means another one
        is listed as ``"timm/NAME"``.

    Raises
    ------
    ValueError
        If `source` is none of these.

    Examples
    --------
    >>> from skdeepfeat.networks import list_models
    >>> list_models("resnet1*", source="torchvision")
    ['resnet101', 'resnet152', 'resnet18']
    """
    if source is not None and source not in _SOURCES:
        wanted = f"None or one of {', '.join(map(repr, _SOURCES))}"
        raise choice_error("source", wanted, source, _SOURCES)
    taken = {*_embedded.NAMES, *_torchvision.list_names()}
    names = {
        "embedded": _embedded.installed_names(),
        "torchvision": list(_torchvision.list_names()),
        "timm": [
            f"timm/{name}" if name.partition(".")[0] in taken else name
            for name in _timm.list_names(tags)
        ],
    }
    found = [n for key in _SOURCES if source in (None, key) for n in names[key]]
    if pattern is None:
        return found
    wanted = pattern.lower()
    return [name for name in found if _matches(name.lower(), wanted)]


def _matches(name, pattern):
    return any(
        fnmatch.fnmatchcase(form, pattern) for form in {name, name.rpartition("/")[2]}
    )
