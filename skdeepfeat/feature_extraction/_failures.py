"""Errors about images that cannot be read, and about features that are not finite.

NaN does not mark an image that could not be read: failures are returned next to the
features. Features that are not finite are never stored or returned.
"""

import contextlib
import logging
import re

from .._utils._warn import warn
from ..exceptions import (
    BadImageError,
    BadImageWarning,
    BadItemError,
    BadItemWarning,
    CacheWarning,
    NonFiniteOutputError,
)

logger = logging.getLogger(__name__)

# Number of images without a single finite feature row after which the network counts
# as broken. The remaining images are not computed just to be listed in the error.
GIVE_UP_AFTER = 32

# How many broken images a message names. A warning's `failures` attribute has all.
_NAMED_FAILURES = 10


def first_failure(failures):
    """Return the error about the first item that cannot be read, with the way out.

    Parameters
    ----------
    failures : dict of int to BadItemError
        By index.
    """
    error = failures[min(failures)]
    word = "image" if isinstance(error, BadImageError) else "item"
    error.add_note(
        f"With on_error='nan', one warning lists the {word}s that cannot be read. They "
        "are left out of a training, and their rows are NaN."
    )
    return error


def list_failures(failures, n=_NAMED_FAILURES):
    """Return a line for each of the first `n` failures, and how many more there are."""
    listed = "\n".join(f"  {error}" for error in failures[:n])
    more = len(failures) - n
    return f"{listed}\n  ... and {more:,} more" if more > 0 else listed


def warn_of(failures, *, in_training=False):
    """Give one warning that lists the items whose features are NaN.

    Parameters
    ----------
    failures : list of BadItemError
    in_training : bool, default=False
        Whether a fit leaves them out.
    """
    are_images = isinstance(failures[0], BadImageError)
    kind = BadImageWarning if are_images else BadItemWarning
    word = "image" if are_images else "item"
    fate = "they are left out" if in_training else "their rows are NaN"
    warn(
        kind(
            f"{len(failures)} {word}(s) could not be read; {fate} "
            "(the warning's `failures` attribute lists all):\n"
            f"{list_failures(failures)}",
            failures,
        )
    )


def non_finite_error(neck, precision, indices):
    """Return the error about images whose features are NaN or infinite.

    Parameters
    ----------
    neck : networks.Neck
    precision : str
    indices : sequence of int
        Into X, in ascending order.

    Returns
    -------
    NonFiniteOutputError
    """
    cause = _likely_cause(neck, precision)
    return NonFiniteOutputError(cause, indices, kind=neck.kind_of_item)


def _likely_cause(neck, precision):
    try:
        names = neck.non_finite_weights()
    except Exception as error:  # the error to come matters more than its cause
        logger.debug("the weights could not be examined", exc_info=error)
        names = []
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        return (
            f"The cause is its weights: {names[0]!r}{more} are NaN or infinite. "
            "Check the file that they come from, or the training that produced them."
        )
    if precision == "float16" or neck.has_float16_weights():
        return (
            "The likely cause is that float16 has no values above 65504. Choose "
            "precision='bfloat16' or 'float32', and convert a network of your own "
            "whose weights are float16 with its method float()."
        )
    return (
        "Its weights are finite, so the likely cause is its own arithmetic on these "
        f"{neck.kind_of_item}s, such as a division by zero or the logarithm of a "
        f"negative value. Leave these {neck.kind_of_item}s out, choose another 'layer' "
        "or 'model', or correct the network."
    )


# -- Warnings of features that are not cached


def warn_of_unstable(neck):
    """Warn that the features of a network are not cached because they vary.

    Parameters
    ----------
    neck : networks.Neck
    """
    why = ""
    if neck.spec.takes_items:
        why = (
            ", or with padding that the network and the pooling do not leave out "
            "(return an 'attention_mask' or 'lengths' from 'collate')"
        )
    warn(
        f"The features of {neck.spec.name!r} are not cached: two runs on the same "
        f"{neck.kind_of_item}s gave different output, as with dropout, random numbers "
        f"or batch statistics in its forward method{why}. Each call computes them "
        "again. Set cache=None to avoid this warning.",
        CacheWarning,
    )


def warn_of_unknown_items(source):
    """Warn that features are not cached because the content of items is not known.

    Parameters
    ----------
    source : ListedItems
        With such items.
    """
    first = source.unknown[0]
    warn(
        f"The features are not cached, because the content of {len(source.unknown)} "
        f"item(s) of X is not known (index {first}: {source.describe(first)}). Items "
        "can be str, bytes, numbers, arrays, tensors, and lists, tuples and dicts of "
        "these. Pass key=FUNCTION, which returns such a value for each item, or "
        "cache=None to avoid this warning.",
        CacheWarning,
    )


# -- Errors about a part of X, or about another parameter than X


@contextlib.contextmanager
def errors_about(name, instead_of="X"):
    """Let errors about X name the parameter that was given.

    What checks and reads images calls them X, as scikit-learn's own checks do.

    Parameters
    ----------
    name : str
        The parameter that was given, such as ``"X_val"``. ``"X"`` changes no text.
    instead_of : str, default="X"
        What errors call it.
    """
    try:
        yield
    except BadItemError as error:
        raise error.at(error.index, error.origin, name) from error.__cause__
    except NonFiniteOutputError as error:
        raise error.at(error.indices, name) from error.__cause__
    except (TypeError, ValueError) as error:
        has_text = len(error.args) == 1 and isinstance(error.args[0], str)
        if has_text and name != instead_of:
            error.args = (_renamed(error.args[0], instead_of, name),)
        raise


@contextlib.contextmanager
def errors_at(indices):
    """Let errors about images of a part of X name their indices in X.

    Parameters
    ----------
    indices : ndarray of int
        Those of the part.
    """
    try:
        yield
    except BadItemError as error:
        raise error.at(int(indices[error.index]), error.origin) from None
    except NonFiniteOutputError as error:
        raise error.at(sorted(indices[list(error.indices)].tolist())) from None


def _renamed(text, old, name):
    # The rest are values: the given one, or the names of columns.
    told, got, value = re.match(r"(.*?)( Got|\n|$)(.*)", text, re.S).groups()
    # As a word, but not in a text that shows a value of the user's.
    word = rf"(?<![\w'\"/\\.-]){old}(?![\w'\"/\\-])"
    told, n_renamed = re.subn(word, name, told)
    # scikit-learn's errors do not always say what they are about. Those about a
    # parameter of the estimator do.
    is_named = re.search(rf"\b{re.escape(name)}\b", told)
    says_what = n_renamed or is_named or told.startswith("The '")
    return f"{'' if says_what else f'{name}: '}{told}{got}{value}"
