"""Pillow's stray warnings must not fail a good image.

Pillow's plugins warn about a corrupt EXIF block, an odd TIFF tag, a size near its own
limit. Where users have warnings turned into errors, such a warning is an exception
out of the middle of a decoder. Only then it is called again, with warnings ignored.

`warnings.catch_warnings` is not used from the start, because it swaps the filter list
of the whole process: threads that enter and leave it crosswise leave the wrong list
behind for good. A filter of our own in that list, which knows the decoding threads,
was tried and rejected: scikit-learn copies the list into its workers, and takes every
entry for a regular expression.
"""

import threading
import warnings

from .._forks import released_after_fork

__all__ = ["call_despite_warnings"]

_lock = released_after_fork(threading.Lock())


def call_despite_warnings(function, *arguments):
    """Call a function; if a warning stops it, call it again with warnings ignored.

    Parameters
    ----------
    function : callable
        Safe to be called twice.
    *arguments
        Its arguments.

    Returns
    -------
    object
        What the function returns.
    """
    try:
        return function(*arguments)
    except Warning:
        # One thread at a time, so that the lists are put back in order.
        with _lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*arguments)
