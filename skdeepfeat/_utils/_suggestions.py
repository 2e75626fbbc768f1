"""Suggestions for misspelled names."""

import difflib


def did_you_mean(name, candidates, n=3):
    """Return `` Did you mean 'a' or 'b'?``, or ``""`` if no candidate is similar.

    Parameters
    ----------
    name : str
        The misspelled name.
    candidates : iterable of str
        The existing names.
    n : int, default=3
        The number of suggestions, at most.

    Returns
    -------
    str
        A sentence with a leading space, to be appended to an error message.
    """
    by_folded = {}
    for candidate in candidates:
        by_folded.setdefault(candidate.lower(), candidate)
    near = difflib.get_close_matches(name.lower(), by_folded, n=n, cutoff=0.6)
    if not near:
        return ""
    return f" Did you mean {' or '.join(repr(by_folded[key]) for key in near)}?"
