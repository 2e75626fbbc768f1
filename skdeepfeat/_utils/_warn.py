"""Warnings that name a line of the user's code."""

import os
import sys
import warnings
from types import FrameType


def _folder_of(file: str) -> str:
    return os.path.dirname(os.path.abspath(file)) + os.sep


_PACKAGE = os.path.dirname(_folder_of(__file__)[:-1]) + os.sep


def warn(message: str | Warning, category: type[Warning] | None = None) -> None:
    """Give a warning that names the line that called the package.

    The stack level is not a fixed number, because public methods are wrapped, and some
    of them run in threads. Frames of scikit-learn and joblib around the package, which
    wrap methods and call those of a pipeline, count as the package's.

    Parameters
    ----------
    message, category
        As for `warnings.warn`.
    """
    # Imported here, because the command line starts without them.
    import joblib
    import sklearn

    wrappers = _folder_of(sklearn.__file__), _folder_of(joblib.__file__)
    level = found = 1
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        follows = found == level - 1 and file.startswith(wrappers)
        if file.startswith(_PACKAGE) or follows:
            found = level
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=found + 1)
