"""Progress bars: widgets in notebooks, text everywhere else."""

import os
import sys
import warnings

with warnings.catch_warnings():
    # In a notebook without ipywidgets bars are text, about which nothing is wrong.
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm


def progress_bar(iterable=None, **options):
    """Return a bar of tqdm, with its parameters.

    A terminal that reports no columns, as in containers, would show nothing. There it
    is 80 characters wide.
    """
    if _has_no_columns():
        options = {"ncols": 80, "nrows": 24, **options}
    return tqdm(iterable, **options)


def _has_no_columns():
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns == 0
    except (AttributeError, OSError, ValueError):
        return False  # not a terminal, or closed
