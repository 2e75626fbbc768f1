"""The neck of an estimator, recalled from the notes of a cache if it has been noted."""

import contextlib
import logging

from .._utils._digests import digest_description
from ..cache import open_cache
from ..networks import (
    key_of_neck,
    libraries_are_imported,
    may_be_noted,
    note_of_neck,
    recall_neck,
    resolve_neck,
)

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def known_neck(cache, *, cache_layers, **parameters):
    """Lend a neck that at least describes itself, for the body of a ``with``.

    If the body succeeds, a neck that took long to resolve is noted.

    Parameters
    ----------
    cache : value of an estimator's `cache` parameter
    cache_layers : value of the estimator's parameter
    **parameters
        Those of `resolve_neck`.

    Yields
    ------
    networks.Neck
        A `RememberedNeck`, which imports neither torchvision nor timm, if it was noted.

    Raises
    ------
    TypeError, ValueError
        As `resolve_neck`.
    """
    described = {name: parameters[name] for name in parameters if name != "examine"}
    key = key_of_neck(**described, cache_layers=cache_layers)
    notes = open_cache(cache).notes()
    if key is None or notes is None:
        yield resolve_neck(**parameters)
        return
    name, found = digest_description(key), None
    if (note := notes.read(name)) is not None:
        found = recall_neck(note, key, **described)
    # A library that is imported can be asked at once. It may know other networks, which
    # the user has registered in this process.
    were_imported = libraries_are_imported()
    if found is not None and not were_imported:
        yield found
        return
    neck = resolve_neck(**parameters)
    yield neck
    # The default neck of an embedded network needs no library until it computes.
    if found is not None or not libraries_are_imported():
        return
    try:
        if may_be_noted(neck, were_imported):
            if cache_layers is not None:
                neck.joined(cache_layers)  # `fit` will not check them again
            notes.write(name, note_of_neck(neck, key))
    except Exception as error:  # a layer that does not exist, for example
        logger.debug("%s is not noted: %s", neck.model_name, error)
