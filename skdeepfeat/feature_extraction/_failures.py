"""Messages about images that could not be read."""

import warnings

from .._utils._stacklevel import caller_stacklevel
from ..exceptions import BadImageWarning

__all__ = ["list_failures", "warn_of", "with_duplicates"]

# How many broken images a message names. A warning's `failures` attribute has all.
_NAMED_FAILURES = 10


def with_duplicates(failures, digests, source):
    """Return a failure for every index of a broken image, not only for its first."""
    by_digest = {
        digests[i]: error for i, error in failures.items() if digests[i] is not None
    }
    every = dict(failures)
    for i, digest in enumerate(digests):
        if digest in by_digest and i not in every:
            every[i] = by_digest[digest].at(i, source.describe(i))
    return [every[i] for i in sorted(every)]


def list_failures(failures, n=_NAMED_FAILURES):
    """Return a line for each of the first `n` failures, and how many more there are."""
    listed = "\n".join(f"  {error}" for error in failures[:n])
    more = len(failures) - n
    return f"{listed}\n  ... and {more:,} more" if more > 0 else listed


def warn_of(failures):
    """Give one `BadImageWarning` that lists the images whose features are NaN."""
    warnings.warn(
        BadImageWarning(
            f"{len(failures)} image(s) could not be read; their rows are NaN "
            "(the warning's `failures` attribute lists all):\n"
            f"{list_failures(failures)}",
            failures,
        ),
        stacklevel=caller_stacklevel() + 1,
    )
