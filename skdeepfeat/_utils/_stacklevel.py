"""The stack level of warnings, so that they name a line of the user's code."""

import os
import sys
from types import FrameType


def _folder_of(file: str) -> str:
    return os.path.dirname(os.path.abspath(file)) + os.sep


_PACKAGE = os.path.dirname(_folder_of(__file__)[:-1]) + os.sep


def caller_stacklevel() -> int:
    """Return the stacklevel, relative to the caller, of the last frame of the package.

    It is not a fixed number, because public methods are wrapped, and some of them run
    in threads. Frames of scikit-learn and joblib around it, which wrap methods and call
    those of a pipeline, count as the package's.
    """
    # Imported here, because the command line starts without them.
    import joblib
    import sklearn

    wrappers = _folder_of(sklearn.__file__), _folder_of(joblib.__file__)
    level = found = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        follows = found == level - 1 and file.startswith(wrappers)
        if file.startswith(_PACKAGE) or follows:
            found = level
        frame = frame.f_back
        level += 1
    return found
