"""Errors about the parameters that describe a network, in one form."""

from .._utils._shown import shown
from .._utils._suggestions import did_you_mean

__all__ = ["choice_error", "is_about"]


_LONGEST_NAME = 200  # characters


def choice_error(parameter, wanted, got, candidates=(), error=ValueError):
    """Return an error about a parameter: name first, what it must be, value last.

    It does not name the estimator, because several estimators and functions pass their
    parameters to this package.

    Parameters
    ----------
    parameter : str
        Its name.
    wanted : str
        What it must be, in words.
    got : object
        The value.
    candidates : iterable of str, default=()
        Names that a misspelt one may have meant.
    error : type, default=ValueError
        The class of the error.

    Returns
    -------
    Exception
        To be raised.
    """
    is_name = isinstance(got, str) and len(got) < _LONGEST_NAME
    hint = did_you_mean(got, candidates) if is_name else ""
    return error(
        f"The {parameter!r} parameter must be {wanted}. Got {shown(got)} instead.{hint}"
    )


def is_about(error, parameter):
    """Whether an error says already what is wrong with a parameter."""
    return str(error).startswith(f"The {parameter!r} parameter must ")
