"""The stack level of warnings, so that they name a line of the user's code."""

import os
import sys
from types import FrameType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def caller_stacklevel() -> int:
    """Return the stacklevel, relative to the caller, of the last frame of the package.

    It is not a fixed number, because public methods are wrapped, and some of them run
    in threads.
    """
    level = found = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            found = level
        frame = frame.f_back
        level += 1
    return found
