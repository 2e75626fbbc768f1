"""Progress bars: widgets in notebooks, text everywhere else."""

import contextlib
import os
import sys
import warnings

with warnings.catch_warnings():
    # In a notebook without ipywidgets, bars are plain text, which needs no warning.
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm


def progress_bar(iterable=None, **options):
    """Return a bar of tqdm, with its parameters.

    A terminal that reports no columns, as in containers, would show nothing. There it
    is 80 characters wide.
    """
    # It fails if that is not a terminal, or closed.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        if os.get_terminal_size(sys.stderr.fileno()).columns == 0:
            options = {"ncols": 80, "nrows": 24, **options}
    return tqdm(iterable, **options)
