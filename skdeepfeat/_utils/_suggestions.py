"""The names that a misspelled one may have meant."""

import difflib

__all__ = ["did_you_mean"]


def did_you_mean(name, candidates, n=3):
    """Return `` Did you mean 'a' or 'b'?``, or ``""`` where nothing is near.

    Parameters
    ----------
    name : str
        What was asked for.
    candidates : iterable of str
        What there is.
    n : int, default=3
        How many to name at most.

    Returns
    -------
    str
        A sentence with a leading blank, to be put behind an error's text.
    """
    by_folded = {}
    for candidate in candidates:
        by_folded.setdefault(candidate.lower(), candidate)
    near = difflib.get_close_matches(name.lower(), by_folded, n=n, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(by_folded[key]) for key in near)}?"
