"""Which line of the user's code a warning is about."""

import os
import sys
from types import FrameType

__all__ = ["caller_stacklevel"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def caller_stacklevel() -> int:
    """Return the stacklevel, seen from the caller, of the code that called us in.

    Public methods are wrapped, and some of them run in threads, so no fixed number of
    frames lies between a warning and the user's call.
    """
    level = found = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            found = level
        frame = frame.f_back
        level += 1
    return found
