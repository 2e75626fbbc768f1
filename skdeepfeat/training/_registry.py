"""Choices by name."""

from .._utils._suggestions import did_you_mean

__all__ = ["look_up"]


def look_up(choices, name, parameter):
    """Return the entry of a registry.

    Parameters
    ----------
    choices : dict of (str or None) to object
    name : str or None
    parameter : str
        The parameter that the name was given as.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        If there is no such choice.
    """
    if isinstance(name, str | None) and name in choices:
        return choices[name]
    hint = did_you_mean(name, filter(None, choices)) if isinstance(name, str) else ""
    raise ValueError(
        f"The {parameter!r} parameter must be one of {sorted(choices, key=str)}. Got "
        f"{repr(name)[:80]} instead.{hint}"
    )
