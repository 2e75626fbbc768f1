"""What is an address and no path. Imports nothing heavy: the command line asks, too."""

import re

__all__ = ["is_address"]

# One protocol, or several as fsspec chains them: "simplecache::s3://bucket/a.jpg". A
# single letter is a drive.
_ADDRESS = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII
)


def is_address(path: str) -> bool:
    """Return whether what should be a path is an address, with a protocol."""
    return "://" in path and _ADDRESS.match(path) is not None
