"""The networks among which to decide."""

import contextlib
import tempfile
from dataclasses import dataclass, field

from sklearn.base import clone
from torch import nn

from .._utils._parameter_errors import choice_error
from .._utils._shown import shown
from ..cache import FeatureCache
from ..feature_extraction import PretrainedFeatureExtractor
from ..networks import list_models


@dataclass(frozen=True, eq=False)
class Network:
    """A network with the way to run it.

    Attributes
    ----------
    name : str
        Different from those of the other networks.
    extractor : PretrainedFeatureExtractor
        With a cache.
    cache : as the parameter of the extractor
        That of the user, which may be None.
    """

    name: str
    extractor: PretrainedFeatureExtractor
    cache: object = field(repr=False, default=None)


@contextlib.contextmanager
def cache_for_deciding():
    """Lend a temporary cache, for extractors without one: each image runs once."""
    with tempfile.TemporaryDirectory(prefix="skdeepfeat-") as folder:
        yield FeatureCache(folder, max_size=None)


def read_models(models, template, cache):
    """Return a `Network` for each of the parameter `models`.

    Parameters
    ----------
    models : list of str, Module and PretrainedFeatureExtractor, or None
    template : PretrainedFeatureExtractor or None
        The parameters of networks that are given as names or modules.
    cache : FeatureCache
        For extractors that have none.

    Raises
    ------
    TypeError, ValueError
        If they are something else, or parameters of an extractor are wrong.
    """
    if models is None:
        models = list_models(source="embedded")
    if not len(models):
        raise choice_error("models", "None or a list of at least one network", models)
    template = template or PretrainedFeatureExtractor()
    extractors = [_make_extractor(one, template) for one in models]
    names = _distinct([_name_of(one) for one in extractors])
    networks = []
    for name, extractor in zip(names, extractors, strict=True):
        own = extractor.cache
        if own is None:
            extractor.set_params(cache=cache)
        networks.append(Network(name, extractor, own))
    return networks


def _make_extractor(model, template):
    if isinstance(model, PretrainedFeatureExtractor):
        extractor = clone(model)
    elif isinstance(model, (str, nn.Module)):
        extractor = clone(template).set_params(model=model)
    else:
        raise TypeError(
            "The 'models' parameter of TransferAdvisor must hold names of networks, "
            "torch modules or PretrainedFeatureExtractors. For a fine-tuned network, "
            "pass PretrainedFeatureExtractor(model=fitted.body_). Got "
            f"{shown(model)} instead."
        )
    return extractor.set_params(layer=None, cache_layers=None)


def _name_of(extractor):
    model = extractor.model
    name = model if isinstance(model, str) else type(model).__name__
    return f"{name}, random" if extractor.weights == "random" else name


def _distinct(names):
    """Return the names with a number behind those that occur several times."""
    seen, result = {}, []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if names.count(name) == 1 else f"{name} #{seen[name]}")
    return result
