"""Errors about the parameters that describe a network, in one form."""

from .._utils._shown import shown
from .._utils._suggestions import did_you_mean

__all__ = ["choice_error", "first_line", "is_about"]

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
        Names that a misspelled one may have meant.
    error : type, default=ValueError
        The class of the error.

    Returns
    -------
    Exception
    """
    is_name = isinstance(got, str) and len(got) < _LONGEST_NAME
    hint = did_you_mean(got, candidates) if is_name else ""
    return error(
        f"The {parameter!r} parameter must be {wanted}. Got {shown(got)} instead.{hint}"
    )


def is_about(error, parameter):
    """Return whether an error already names a parameter that is wrong."""
    return str(error).startswith(f"The {parameter!r} parameter must ")


def first_line(error):
    """Return the first line of an error's text, at most about 200 characters."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first if len(first) <= 200 else f"{first[:200]} ..."
