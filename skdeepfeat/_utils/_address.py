"""Tell addresses from paths. The command line uses it, so it imports little."""

import os
import re

from ._printable import has_address, redacted

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


def shown_addresses(params):
    """Return parameters of which those that may be addresses show no password."""
    return {
        name: ShownAddress(value)
        if type(value) is str and has_address(value)
        else value
        for name, value in params.items()
    }


def is_address(path: str) -> bool:
    """Return whether a path is an address, with a protocol."""
    return "://" in path and _ADDRESS.match(path) is not None


def is_like_address(path: str) -> bool:
    """Return whether a path to write to must be meant as an address.

    pathlib makes one slash of the two of an address.
    """
    return "://" in path or _LIKE_ADDRESS.match(path) is not None


def check_local(path, name: str) -> None:
    """Raise ValueError if a file is to be written to or read from an address.

    pathlib would take it for folders, and `save` make these.

    Parameters
    ----------
    path : str or path-like
    name : str
        That of the parameter.
    """
    if is_like_address(os.fsdecode(path)):
        raise ValueError(
            f"The {name!r} parameter must be on a local disk: download or upload the "
            f"file yourself. Got {redacted(os.fsdecode(path))!r} instead."
        )
