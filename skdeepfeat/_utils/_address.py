"""Tell addresses from paths. The command line uses it, so it imports little."""

import os
import re

from ._printable import redacted

# One protocol, or several as fsspec chains them: "simplecache::s3://bucket/a.jpg". A
# single letter is a Windows drive.
_ADDRESS = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII
)


def is_address(path: str) -> bool:
    """Return whether a path is an address, with a protocol."""
    return "://" in path and _ADDRESS.match(path) is not None


def check_local(path, name: str) -> None:
    """Raise ValueError if a file is to be written to or read from an address.

    pathlib would take it for folders, and `save` make these.

    Parameters
    ----------
    path : str or path-like
    name : str
        That of the parameter.
    """
    if "://" in os.fspath(path):
        raise ValueError(
            f"The {name!r} parameter must be on a local disk: download or upload the "
            f"file yourself. Got {redacted(os.fspath(path))!r} instead."
        )
