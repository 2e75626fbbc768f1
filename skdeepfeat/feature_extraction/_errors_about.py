"""Errors about images that are a part of X, or another parameter than X."""

import contextlib
import re

from ..exceptions import BadItemError, NonFiniteOutputError


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
