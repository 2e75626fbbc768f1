"""Checks of parameters, and errors about them, all in the same form."""

import difflib
import numbers

import numpy as np

from ._printable import printable
from ._shown import shown

_LONGEST_NAME = 200  # characters


def choice_error(parameter, wanted, got, candidates=(), error=ValueError):
    """Return an error about a parameter: name first, what it must be, value last.

    It does not name the estimator, because several estimators and functions pass their
    parameters to the internal packages.

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


def is_int(value):
    """Return whether a value is an integer of any type, but not a bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_count(parameter, value, may_be_none=False):
    """Raise ValueError unless a parameter is an int >= 1, or None where allowed."""
    if (value is None and may_be_none) or (is_int(value) and value >= 1):
        return
    wanted = "an int of at least 1"
    raise choice_error(parameter, f"None or {wanted}" if may_be_none else wanted, value)


def check_sizes(parameter, sizes, least=1):
    """Return a parameter that is one int or several as a list of int.

    Parameters
    ----------
    parameter : str
    sizes : int or array-like
    least : int, default=1

    Raises
    ------
    ValueError
        If there is none, or one is no int or too small.
    """
    found = np.ravel(sizes).tolist()
    if not found or not all(is_int(size) and size >= least for size in found):
        wanted = f"one int or several, all of them at least {least}"
        raise choice_error(parameter, wanted, sizes)
    return found


def look_up(choices, name, parameter):
    """Return the entry of a registry, or raise ValueError if there is no such choice.

    Parameters
    ----------
    choices : dict of (str or None) to object
    name : str or None
    parameter : str
        The parameter that the name was given as.
    """
    if isinstance(name, str | None) and name in choices:
        return choices[name]
    wanted = f"one of {sorted(choices, key=str)}"
    raise choice_error(parameter, wanted, name, filter(None, choices))


def check_several(parameter, value, choices):
    """Return a list of names from a parameter that takes one or several of them.

    Parameters
    ----------
    parameter : str
    value : str or list or tuple of str
    choices : collection of str

    Raises
    ------
    ValueError
    """
    names = list(value) if isinstance(value, (list, tuple)) and value else [value]
    for name in names:
        if not isinstance(name, str) or name not in choices:
            wanted = f"one of {sorted(choices)}, or a list of several"
            raise choice_error(parameter, wanted, name, choices)
    return names


def is_about(error, parameter):
    """Return whether an error already names a parameter that is wrong."""
    return str(error).startswith(f"The {parameter!r} parameter must ")


def first_line(error):
    """Return the first line of an error's text, at most about 200 characters.

    Errors of TorchScript begin with a traceback, and those of OpenVINO with a line of
    its source, so their last line is returned.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    begins_with_place = lines[0].startswith(("Check '", "Exception from "))
    if begins_with_place or "TorchScript interpreter" in lines[0]:
        lines = [lines[-1].strip().removeprefix("-- ")]
    first = printable(lines[0])
    return first if len(first) <= 200 else f"{first[:200]} ..."


def did_you_mean(name, candidates, n=3):
    """Return `` Did you mean 'a' or 'b'?``, or ``""`` if no candidate is similar.

    Parameters
    ----------
    name : str
        The misspelled name.
    candidates : iterable of str
        The existing names.
    n : int, default=3
        The number of suggestions, at most.

    Returns
    -------
    str
        A sentence with a leading space, to be appended to an error message.
    """
    by_folded = {}
    for candidate in candidates:
        by_folded.setdefault(candidate.lower(), candidate)
    near = difflib.get_close_matches(name.lower(), by_folded, n=n, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(by_folded[key]) for key in near)}?"
