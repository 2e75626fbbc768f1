"""Short forms of values for messages."""

import reprlib

from ._printable import has_address, redacted

_LENGTH = 80  # characters
# Longer than nearly all paths, because only a complete path is useful.
_PATH_LENGTH = 255


def _make_repr():
    # As many items of each container as could fit, so that only long ones are cut.
    maker = reprlib.Repr()
    maker.maxlevel = 4
    for name in ("list", "tuple", "dict", "set", "frozenset", "deque", "array"):
        setattr(maker, f"max{name}", _LENGTH // 2)
    maker.maxstring = maker.maxlong = maker.maxother = 2 * _LENGTH
    return maker


_repr = _make_repr().repr


def shown(value, length=_LENGTH) -> str:
    """Return the `repr` of a value on one line, cut to some number of characters.

    Secrets in addresses are hidden.

    Parameters
    ----------
    value : object
        Of any size: items that would not fit are not formatted.
    length : int, default=80
        In characters.

    Returns
    -------
    str
    """
    if isinstance(value, str) and has_address(value[: 8 * _PATH_LENGTH]):
        # Before it is cut, because half a password would not be recognized.
        value = redacted(value[: 8 * _PATH_LENGTH])
    if isinstance(value, (str, bytes)) and len(value) > length:
        # The beginning is enough; reprlib would also keep the end.
        text = repr(value[:length])
    else:
        text = " ".join(_repr(value).split())
        if has_address(text):
            text = redacted(text)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def shown_path(path) -> str:
    """Return a path as it is if it is short and printable, otherwise its repr.

    Secrets are hidden if it is an address.
    Only the beginning is shown of what is too long for a path. It may be data.

    Parameters
    ----------
    path : str or pathlib.Path

    Returns
    -------
    str
    """
    path = str(path)
    if has_address(path[: 8 * _PATH_LENGTH]):
        path = redacted(path[: 8 * _PATH_LENGTH])
    if len(path) <= _PATH_LENGTH and path.isprintable():
        return path
    return shown(path) if len(path) > _PATH_LENGTH else repr(path)


def rounded(value) -> str:
    """Return a number with three significant digits, large ones without an exponent."""
    number = float(f"{value:.3g}")
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
