"""Named necks of earlier processes, recalled without torchvision and timm.

These libraries say which weights and which preprocessing belong to a name, and only
with them can a network be built and its layers be found. They take as long to import
as everything else together, and rows that are known need none of that. So what was
found out is noted. The key of a note has everything that it depends on: the parameters,
and versions and files of the packages. A neck that is recalled only names rows. If any
have to be computed, the neck is resolved, and must be the same.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .._utils._digests import digest_description
from .._utils._parameter_errors import is_int
from .._utils._preprocessing import Preprocessing
from ..exceptions import WeightsNotFoundError
from ._installed_code import LIBRARIES, installed_code, is_as_imported, is_of_library
from ._neck import Neck, resolve_neck
from .probing._wanted_layers import Output
from .running._layer import Layer
from .sources import _embedded
from .sources._downloaded_weights import HubWeights, UrlWeights
from .sources._network_sources import HUB_PREFIXES
from .sources._network_spec import NetworkSpec
from .sources._preprocessing_parameter import read_image_size, read_preprocessing
from .sources._weights import Weights
from .sources._weights_sources import FileWeights, RandomWeights, read_weights

logger = logging.getLogger(__name__)

_WEIGHTS = {"url": UrlWeights, "hub": HubWeights}
_RECORDS = (Output, Layer, *_WEIGHTS.values())
_SPEC_FIELDS = ("name", "model_name", "architecture", "has_pre_logits", "classifier")
_SPEC_TYPES = (str, str, dict, bool, (str, type(None)))
# Notes with more features are ignored, because names and rows would be allocated.
_MAX_FEATURES = 2**20


@dataclass(frozen=True, eq=False)
class RememberedNeck(Neck):
    """A neck that is known from a note: it describes itself and computes nothing.

    Attributes
    ----------
    resolve : callable
        Returns the neck that computes.
    """

    resolve: Callable[[], Neck] = field(kw_only=True)

    @functools.cached_property
    def resolved(self):
        """The neck that computes features. Reading this imports the libraries."""
        return self.resolve()

    def _make_probe(self):
        return self.resolved.probe


def libraries_are_imported():
    """Return whether timm or torchvision is imported."""
    return any(name in sys.modules for name in LIBRARIES)


@contextlib.contextmanager
def known_neck(notes, *, cache_layers, **parameters):
    """Lend a neck that at least describes itself, for the body of a ``with``.

    If the body succeeds, a neck that took long to resolve or was examined is noted.

    Parameters
    ----------
    notes : cache.SideFiles or None
    cache_layers : value of the estimator's parameter
    **parameters
        Those of `resolve_neck`.

    Yields
    ------
    Neck
        A `RememberedNeck`, which imports neither torchvision nor timm, if it was noted.

    Raises
    ------
    TypeError, ValueError
        As `resolve_neck`.
    """
    described = {name: parameters[name] for name in parameters if name != "examine"}
    # A library that is already imported can be used at once. It may have other
    # networks, which the user has registered in this process.
    were_imported = libraries_are_imported()
    is_default = cache_layers is None and not parameters["examine"]
    model = parameters["model"]
    if is_default and isinstance(model, str) and _embedded.knows(model):
        notes = None  # it needs no library until it computes
    key = None
    if notes is not None and not were_imported:
        key = key_of_neck(**described, cache_layers=cache_layers)
        note = key and notes.read(digest_description(key))
        if note and (found := recall_neck(note, key, **described)) is not None:
            yield found
            return
    neck = resolve_neck(**parameters)
    yield neck
    if notes is None or not libraries_are_imported():
        return
    # A neck is not examined only to write a note if nothing had to be imported.
    if were_imported and "outputs" in vars(neck):
        key = key_of_neck(**described, cache_layers=cache_layers)
    if key is None:
        return
    name = digest_description(key)
    try:
        if were_imported and notes.read(name) is not None:
            return
        if may_be_noted(neck, were_imported):
            if cache_layers is not None:
                neck.joined(cache_layers)  # `fit` will not check them again
            notes.write(name, note_of_neck(neck, key))
    except Exception as error:  # a layer that does not exist, for example
        logger.debug("no note about %s: %s", neck.spec.model_name, error)


def key_of_neck(
    model,
    layer,
    pooling,
    weights,
    image_size,
    preprocessing,
    random_state,
    cache_layers=None,
):
    """Return the key of the note about a named neck, before it is resolved.

    The parameters are those of `resolve_neck`, and `cache_layers` of the extractor.

    Returns
    -------
    dict of JSON types or None
        None if nothing may be noted or recalled: for a user's module, a repository of
        the hub, and packages that are not installed in the usual way.
    """
    if not isinstance(model, str) or model.startswith(HUB_PREFIXES):
        return None
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        return None  # reading it may need the libraries
    try:
        own = _own_weights(weights, random_state)
        read = read_preprocessing(preprocessing)
        key = {
            "model": model,
            "layer": _plain(layer),
            "pooling": _plain(pooling),
            "weights": str(weights) if own is None else dataclasses.asdict(own),
            "image_size": _plain(read_image_size(image_size)),
            "preprocessing": read and read.describe(),
            "cache_layers": _plain(cache_layers),
        }
    except (TypeError, ValueError, WeightsNotFoundError):
        return None  # `resolve_neck` raises it again, or what comes before it
    code = installed_code()
    return code and {**key, "code": code}


def may_be_noted(neck, were_imported):
    """Return whether a neck says what a new process would find out.

    Parameters
    ----------
    neck : Neck
    were_imported : bool
        Whether the libraries had been imported before the neck was resolved.
    """
    known, now = installed_code(), installed_code.__wrapped__()
    if known != now:
        return False
    if were_imported and not all(map(is_as_imported, LIBRARIES)):
        return False
    return is_of_library(neck.spec.architecture)


def _plain(value):
    """Return names and numbers, alone or in a list, in JSON types."""
    if value is None or type(value) in (str, int):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if is_int(value):
        return int(value)
    raise TypeError("no name and no number")


def _own_weights(weights, random_state):
    """Return weights that do not come with the name of the network, or None."""
    found = read_weights(weights, random_state)
    if isinstance(found, (Weights, str)):
        return found if isinstance(found, Weights) else None
    raise TypeError("a member of torchvision's enumeration")


# -- Writing notes


def note_of_neck(neck, key):
    """Return what to note about a neck, which is examined for that.

    Parameters
    ----------
    neck : Neck
    key : dict
        From `key_of_neck`.

    Returns
    -------
    bytes
    """
    spec = neck.spec
    described = {
        **{name: getattr(spec, name) for name in _SPEC_FIELDS},
        "weights": _describe_weights(spec.weights),
        "preprocessing": spec.preprocessing.describe(),
        "native_size": list(spec.native_size),
        "outputs": [dataclasses.asdict(one) for one in neck.outputs],
    }
    return json.dumps({"key": key, "neck": described}).encode()


def _describe_weights(weights):
    if isinstance(weights, (FileWeights, RandomWeights)):
        return None  # the parameter determines it
    for name, kind in _WEIGHTS.items():
        if isinstance(weights, kind):
            return {name: dataclasses.asdict(weights)}
    return {"embedded": weights.name}


# -- Reading notes


def recall_neck(data, key, model, **parameters):
    """Return the neck that a note describes, or None if the note is not one of ours.

    Parameters
    ----------
    data : bytes
        From anybody who can write to the cache.
    key : dict
        From `key_of_neck`.
    model, **parameters
        Those of `resolve_neck`.

    Returns
    -------
    RememberedNeck or None
    """
    try:
        note = json.loads(data)
        if note.keys() != {"key", "neck"} or note["key"] != key:
            return None
        return _read_neck(note["neck"], model, parameters)
    # A file by someone else may not be JSON, or lack these names and types.
    except (
        ArithmeticError, AttributeError, ImportError, LookupError, RecursionError,
        TypeError, ValueError,
    ):  # fmt: skip
        return None


def _read_neck(note, model, parameters):
    wanted = {*_SPEC_FIELDS, "weights", "preprocessing", "native_size", "outputs"}
    if note.keys() != wanted:
        raise ValueError("other fields")
    values = {name: note[name] for name in _SPEC_FIELDS}
    if not all(map(isinstance, values.values(), _SPEC_TYPES)):
        raise TypeError("other types")
    weights = _own_weights(parameters["weights"], parameters["random_state"])
    preprocessing = read_preprocessing(note["preprocessing"])
    if weights is None:
        weights = _read_weights(note["weights"])
        if not weights.is_identified():
            raise ValueError("a stranger's address is not asked for a file")
    spec = NetworkSpec(
        **values,
        build=_refuse_to_build,
        weights=weights,
        preprocessing=preprocessing,
        native_size=_read(tuple[int, ...], note["native_size"]),
    )
    outputs = _read(tuple[Output, ...], note["outputs"])
    if preprocessing.describe() != note["preprocessing"] or not outputs:
        raise ValueError("other values")
    if sum(one.n_features for one in outputs) > _MAX_FEATURES:
        raise ValueError("too many features")
    neck = RememberedNeck(
        spec,
        parameters["layer"],
        parameters["pooling"],
        resolve=functools.partial(resolve_neck, model, **parameters),
    )
    vars(neck)["outputs"] = outputs
    return neck


def _refuse_to_build():
    raise RuntimeError("this neck has to be resolved first")


def _read_weights(note):
    [(name, values)] = note.items()
    if name == "embedded":
        return _embedded.find_weights(_read(str, values))
    return _read(_WEIGHTS[name], values)


def _read(kind: Any, value: Any) -> Any:
    """Return a value of JSON as a type, exactly; raise if it is of another."""
    if kind in _RECORDS:
        fields = {one.name: one.type for one in dataclasses.fields(kind)}
        if value.keys() != fields.keys():
            raise ValueError("other fields")
        return kind(**{name: _read(fields[name], value[name]) for name in fields})
    if kind == str | None:
        return None if value is None else _read(str, value)
    if kind in (str, int, bool):
        if type(value) is not kind or (kind is int and value < 0):
            raise TypeError("other type")
        return value
    if not isinstance(value, list):
        raise TypeError("other type")
    [one, _] = kind.__args__  # tuple[one, ...]
    return tuple(_read(one, each) for each in value)
