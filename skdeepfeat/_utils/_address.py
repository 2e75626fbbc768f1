"""Tell addresses from paths. The command line uses it, so it imports little."""

import re

# One protocol, or several as fsspec chains them: "simplecache::s3://bucket/a.jpg". A
# single letter is a Windows drive.
_ADDRESS = re.compile(
    r"(?:[A-Za-z][A-Za-z0-9+.-]+::)*[A-Za-z][A-Za-z0-9+.-]+://", re.ASCII
)


def is_address(path: str) -> bool:
    """Return whether a path is an address, with a protocol."""
    return "://" in path and _ADDRESS.match(path) is not None
