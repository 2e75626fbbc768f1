"""Tell addresses from paths. The command line uses it, so it imports little."""

import os
import pathlib
import re
from typing import Any

from ._printable import has_address, has_password, redacted

# One protocol, or several as fsspec chains them: "simplecache::s3://bucket/a.jpg". A
# single letter is a Windows drive.
_ADDRESS = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII
)

_LIKE_ADDRESS = re.compile(
    r"(?:[^/].*[/:])?[A-Za-z][A-Za-z0-9+.-]+:/|hf[-_]hub:", re.ASCII
)


class ShownAddress(str):
    """An address whose `repr` shows no password.

    Copies are the same object, as `clone` requires, and pickles hold a plain str.
    """

    __slots__ = ()

    def __deepcopy__(self, memo):
        return self

    def __reduce__(self):
        return str, (str(self),)

    def __repr__(self):
        return repr(redacted(self))


_Path: Any = type(pathlib.Path())


class ShownPath(_Path):
    """The same for what was made a path."""

    __slots__ = ()
    __deepcopy__ = ShownAddress.__deepcopy__

    def __reduce__(self):
        return pathlib.Path, (str(self),)

    def __repr__(self):
        return f"{_Path.__name__}({redacted(self)!r})"


def shown_addresses(params):
    """Return parameters of which those that may be addresses show no password."""
    return {name: _shown(value) for name, value in params.items()}


def _shown(value):
    if type(value) is str:
        return ShownAddress(value) if has_address(value) else value
    if type(value) is _Path:
        return ShownPath(value) if has_address(str(value)) else value
    if type(value) in (list, tuple):
        shown = [_shown(one) for one in value]
        # The same object if nothing has to be hidden any more, as `clone` requires.
        if any(new is not old for new, old in zip(shown, value, strict=True)):
            return type(value)(shown)
    return value


def is_address(path: str) -> bool:
    """Return whether a path is an address, with a protocol."""
    return "://" in path and _ADDRESS.match(path) is not None


def is_like_address(path: str) -> bool:
    """Return whether a path to write to must be meant as an address.

    pathlib makes one slash of the two of an address. A user with a password, such as
    user:password@host/path, would become the name of a folder.
    """
    return "://" in path or _LIKE_ADDRESS.match(path) is not None or has_password(path)


def check_local(path, name: str) -> None:
    """Raise ValueError if a file is to be written to or read from an address.

    pathlib would take it for folders, and `save` make these. An empty path would be the
    working folder.

    Parameters
    ----------
    path : str or path-like
    name : str
        That of the parameter.
    """
    if not os.fsdecode(path):
        raise ValueError(
            f"The {name!r} parameter must be the path of a file. Got {path!r} instead."
        )
    if is_like_address(os.fsdecode(path)):
        raise ValueError(
            f"The {name!r} parameter must be on a local disk: download or upload the "
            f"file yourself. Got {redacted(os.fsdecode(path))!r} instead."
        )
