"""The one form in which this room says what is wrong with a parameter."""

from .._errors import did_you_mean
from .._shown import shown

__all__ = ["choice_error", "is_about"]


_LONGEST_NAME = 200  # characters


def choice_error(parameter, wanted, got, candidates=(), error=ValueError):
    """Return an error about a parameter: name first, what it must be, value last.

    Whose parameter it is goes without saying: several estimators and functions hand
    theirs on to this room.

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
